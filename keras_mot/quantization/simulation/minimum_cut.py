"""The cheapest way to give each of many things one of two forms, when neighbours of different form cost extra."""

import collections
import itertools


class MinimumCut:
    """Things that are on one of two sides, and what that costs (Greig et al., 1989: a cut of a flow network).

    Keys of things are anything that can be a key of a dictionary.
    """

    def __init__(self):
        self._capacities = collections.defaultdict(dict)  # node -> {node: what may flow between them}
        self._source, self._sink = object(), object()

    def first_costs(self, key, cost):
        """Adds to the cost of having a thing on the first side."""
        self._add(key, self._sink, cost)

    def second_costs(self, key, cost):
        """Adds to the cost of having it on the second side."""
        self._add(self._source, key, cost)

    def apart_costs(self, first, second, cost):
        """Adds to the cost of having one thing on the first side while another is on the second."""
        self._add(first, second, cost)

    def _add(self, start, end, capacity):
        flows = self._capacities[start]
        flows[end] = flows.get(end, 0.0) + capacity
        self._capacities[end].setdefault(start, 0.0)

    def second(self):
        """The keys on the second side, as few as the least cost allows."""
        while True:
            levels = self._levels()
            if self._sink not in levels:
                break
            while self._push(levels):
                pass
        return self._leading_to_sink()

    def _levels(self):
        """How many steps each node is from the source, where something can flow (Dinitz, 1970)."""
        levels, waiting = {self._source: 0}, collections.deque([self._source])
        while waiting:
            node = waiting.popleft()
            for other, capacity in self._capacities[node].items():
                if capacity > 0 and other not in levels:
                    levels[other] = levels[node] + 1
                    waiting.append(other)
        return levels

    def _push(self, levels):
        """Sends a flow along one shortest way; returns whether there was one. Dead ends are taken out of `levels`."""
        way = [self._source]
        while way[-1] is not self._sink:
            node = way[-1]
            for other, capacity in self._capacities[node].items():
                if capacity > 0 and levels.get(other) == levels[node] + 1:
                    way.append(other)
                    break
            else:
                levels.pop(node)
                way.pop()
                if not way:
                    return False
        pairs = list(itertools.pairwise(way))
        flow = min(self._capacities[start][end] for start, end in pairs)
        for start, end in pairs:
            # What is used up is exactly 0, whatever floats round to.
            rest = self._capacities[start][end]
            self._capacities[start][end] = 0.0 if rest == flow else rest - flow
            self._capacities[end][start] += flow
        return True

    def _leading_to_sink(self):
        found, waiting = {self._sink}, [self._sink]
        while waiting:
            node = waiting.pop()
            for other in self._capacities[node]:
                if other not in found and self._capacities[other].get(node, 0.0) > 0:
                    found.add(other)
                    waiting.append(other)
        return found - {self._sink}
