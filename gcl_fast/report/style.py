"""The report's style sheet; colours follow the reader's light or dark setting."""

from __future__ import annotations

_LIGHT = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
_DARK = ("#60a5fa", "#f87171", "#34d399", "#fbbf24", "#a78bfa", "#22d3ee", "#f472b6", "#a3e635")


def _variables(colours: tuple[str, ...]) -> str:
    return "".join(f"--c{i}:{colour};" for i, colour in enumerate(colours))


_RULES = ".c{i} {{ stroke: var(--c{i}) }} .dot.c{i} {{ fill: var(--c{i}) }} .b{i} {{ background: var(--c{i}) }}\n"
_SERIES = "".join(_RULES.format(i=i) for i in range(len(_LIGHT)))

STYLE = (
    f"""
:root {{ color-scheme: light dark; --paper:#f6f7f9; --card:#fff; --ink:#1f2328; --faint:#656d76; --line:#d8dee4;
  --shade:#1f232838; --good:#15803d; --bad:#b91c1c; --warn:#b45309; --accent:#2563eb; {_variables(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper:#0d1117; --card:#161b22; --ink:#e6edf3; --faint:#8d96a0;
  --line:#30363d; --shade:#e6edf340; --good:#4ade80; --bad:#f87171; --warn:#fbbf24; --accent:#60a5fa; {_variables(_DARK)} }} }}
"""
    + """
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  overflow-wrap: break-word; font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 36px 20px 64px }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 19px; margin: 40px 0 12px }
h3 { font-size: 15px; margin: 22px 0 8px; color: var(--faint); font-weight: 600 }
p { margin: 6px 0 12px; max-width: 76ch }
.faint, figcaption { color: var(--faint) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 130px), 1fr)); gap: 10px; margin-top: 20px }
.card, .panel, figure, .table, details { background: var(--card); border: 1px solid var(--line); border-radius: 10px }
.card { padding: 12px 14px; min-width: 0; overflow-wrap: anywhere }
.card b { display: block; font-size: 18px; line-height: 1.5; font-weight: 650 }
.live { border-left: 3px solid var(--accent); padding-left: 10px; color: var(--faint) }
.warnings { margin: 20px 0 0; padding: 14px 16px 4px; background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--warn); border-radius: 10px; overflow-wrap: anywhere }
.warnings h2 { margin: 0 0 8px; font-size: 16px } .warnings p { max-width: none }
.card small { color: var(--faint); font-size: 13px; display: block }
.good { color: var(--good) } .bad { color: var(--bad) }
/* A shade at the edge behind which a table goes on: covers that scroll along hide it at the table's own ends. */
.table { overflow-x: auto; margin: 10px 0; background: linear-gradient(to right, var(--card) 30%, transparent) 0 / 48px 100%,
  linear-gradient(to left, var(--card) 30%, transparent) 100% / 48px 100%,
  linear-gradient(to right, var(--shade), transparent) 0 / 16px 100%,
  linear-gradient(to left, var(--shade), transparent) 100% / 16px 100%, var(--card);
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll, scroll }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 8px 14px; text-align: right; border-top: 1px solid var(--line); white-space: nowrap }
tr:first-child th, tbody tr:first-child td, tbody tr:first-child th { border-top: 0 }
thead + tbody tr:first-child > * { border-top: 1px solid var(--line) }
th { font-weight: 600 } thead th { color: var(--faint); font-size: 13px }
th:first-child, td:first-child { text-align: left }
tbody th { white-space: normal; min-width: 9em; position: sticky; left: 0; background: var(--card) }
.facts th { width: 60%; font-weight: 400 } .facts th, .facts td { min-width: 0; white-space: normal; overflow-wrap: anywhere }
td.bar { width: 45%; min-width: 90px } td.bar i { display: block; height: 12px; border-radius: 4px; background: var(--line) }
td.bar i.own { background: var(--accent) }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 12px }
.panel { padding: 12px 12px 10px; min-width: 0 }
.panel h4 { margin: 0 4px 6px; font-size: 14px }
svg { display: block; width: 100%; height: auto }
svg text { fill: var(--faint); font-size: 11.5px; font-family: inherit }
.grid { stroke: var(--line); stroke-width: .7 } .axis { stroke: var(--faint); stroke-width: 1 }
polyline { fill: none; stroke-linejoin: round } .raw { opacity: .22; stroke-width: 1 } .smooth { stroke-width: 1.8 }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; padding: 4px; font-size: 12.5px; color: var(--faint) }
.legend span { min-width: 0; overflow-wrap: anywhere }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px }
.legend .x { margin-left: auto }
figure { margin: 14px 0; padding: 14px }
.wide { overflow-x: auto }
figure img { display: block; max-width: max(100%, 760px); height: auto; margin: 0 auto; border-radius: 6px; background: #fff }
figcaption { margin-top: 10px; font-size: 14px } figcaption b { color: var(--ink) }
details { padding: 12px 16px; margin: 14px 0 } details figure { border: 0; padding: 0 }
details .table { margin: 10px 0 0; border-radius: 0; border-width: 1px 0 0 }
details.stage { padding: 0; background: none; border: 0 } .stage .panels { margin-top: 10px }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere } .stage > summary { color: var(--faint) }
pre { overflow-x: auto; margin: 12px 0 2px; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
@media print { body { background: #fff } .card, .panel, figure, .table { break-inside: avoid } }
"""
    + _SERIES
)
