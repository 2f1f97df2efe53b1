"""How the page looks: on screens of any width, on paper, on a dark background."""

from keras_mot.analysis.plots.style import COLOURS

_LIGHT = "".join(f"--{name}:{value[0]};" for name, value in COLOURS.items())
_DARK = "".join(f"--{name}:{value[1]};" for name, value in COLOURS.items())

SHEET = f"""
:root {{ color-scheme: light dark; {_LIGHT} --paper:#ffffff; --tint:#f5f7fa; --note:#fff6e8; --alarm:#fdeeea; }}
@media (prefers-color-scheme: dark) {{
  :root {{ {_DARK} --paper:#14181e; --tint:#1c2129; --note:#2b2519; --alarm:#331e1b; }}
}}
""" + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.5rem, 4.2vw, 2.25rem); line-height: 1.2; margin: 0 0 1rem; letter-spacing: -0.015em;
  font-weight: 650; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line);
  font-weight: 650; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; font-weight: 650; }
p, li { max-width: 44rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; }
a { color: var(--first); }
.eyebrow { color: var(--muted); font-size: .875rem; margin: 0 0 .75rem; }
.muted, .how { color: var(--muted); }
.how { font-size: .875rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; font-size: .875rem; margin: 1.25rem 0 0; }
nav a { text-decoration: none; }
nav a:hover, nav a:focus { text-decoration: underline; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
.card { background: var(--tint); border-radius: .6rem; padding: .9rem 1rem; }
.card .label { color: var(--muted); font-size: .8125rem; }
.card .value { font-size: 1.5rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card .was { color: var(--muted); font-size: .8125rem; font-variant-numeric: tabular-nums; }
.advice { list-style: none; padding: 0; margin: 1rem 0; display: grid; gap: .6rem; }
.advice li { background: var(--note); border-left: 3px solid var(--second); border-radius: .3rem; padding: .6rem .9rem;
  max-width: none; }
.advice li.serious { background: var(--alarm); border-color: var(--bad); }
.advice strong { font-weight: 600; display: block; }
.fine { border-left: 3px solid var(--third); background: var(--tint); border-radius: .3rem; padding: .6rem .9rem; }
.scroll { overflow-x: auto; margin: .75rem 0; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
th { color: var(--muted); font-weight: 500; border-bottom-color: var(--muted); vertical-align: bottom; }
td.number, th.number { text-align: right; white-space: nowrap; }
td:not(.number) { max-width: 24rem; overflow-wrap: break-word; }
td:not(.number) code { overflow-wrap: break-word; }
tr.marked td { font-weight: 650; }
.was-now { color: var(--muted); }
figure { margin: 1rem 0; }
figure > svg { display: block; width: 100%; max-width: 30rem; height: auto; }
figure.wide > svg { max-width: 100%; }
figcaption { color: var(--muted); font-size: .8125rem; max-width: 30rem; margin-top: .35rem; }
.kernels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1.25rem 1.5rem;
  margin: 1rem 0; }
.kernel { min-width: 0; break-inside: avoid; }
.kernel h3 { margin: 0; font-size: .875rem; overflow-wrap: anywhere; }
.kernel p { margin: .1rem 0 .25rem; font-size: .8125rem; color: var(--muted); }
.kernel figure { margin: 0; }
.mask { display: block; width: 100%; height: 4.5rem; image-rendering: pixelated; border: 1px solid var(--line);
  border-radius: .2rem; margin-top: .4rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--first); font-size: .9375rem; }
pre { background: var(--tint); border-radius: .4rem; padding: .8rem 1rem; overflow-x: auto; font-size: .8125rem;
  line-height: 1.45; max-width: 100%; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .9em; overflow-wrap: anywhere; }
pre code { overflow-wrap: normal; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1rem; font-size: .9375rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .8125rem; }
@media (max-width: 30rem) {
  main { padding: 1.5rem 1rem 3rem; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .card { padding: .7rem .8rem; } .card .value { font-size: 1.25rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
}
@media print {
  @page { margin: 16mm; }
  :root { color-scheme: light; LIGHT --paper:#ffffff; --tint:#f5f7fa; --note:#fff6e8; --alarm:#fdeeea; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2 { margin-top: 1.5rem; break-after: avoid; }
  figure, .card, .advice li, tr { break-inside: avoid; }
  figure > svg { max-width: 26rem; }
  .kernels { grid-template-columns: repeat(2, 1fr); }
  .scroll, pre { overflow: visible; } pre { white-space: pre-wrap; }
  table { width: 100%; font-size: .75rem; } th, td { padding: .25rem .4rem; }
  td:not(.number) { min-width: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
  summary { color: var(--muted); list-style: none; }
  a { color: inherit; text-decoration: none; }
}
""".replace("LIGHT", _LIGHT)
