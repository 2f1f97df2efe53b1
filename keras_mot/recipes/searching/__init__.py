"""Search: the recipe for a budget, found by sensitivities and by trying."""
