"""The report as one HTML page: no script, no outside asset, in light and in dark."""

from __future__ import annotations

from html import escape

from benchmarks.figures import Figure, number
from benchmarks.report.collect import Report, Section
from benchmarks.report.plot import picture, scales

STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #e2e6ec; --paper: #ffffff; --band: #f6f8fa; --good: #1a7f4b;
  --bad: #c0392b; --mark: #2f6fde; --floor: #1a7f4b; --rival: #b07d18; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #97a2b2; --line: #2c333d; --paper: #14181e;
  --band: #1b2028; --good: #4cc38a; --bad: #ff7b6b; --mark: #6ea0ff; --floor: #4cc38a; --rival: #e0b050; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 40px 28px 80px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 30px; margin: 0 0 4px; letter-spacing: -0.02em; }
h2 { font-size: 19px; margin: 52px 0 2px; letter-spacing: -0.01em; }
p { margin: 6px 0; } .soft, small { color: var(--soft); } code { font-size: 12.5px; color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1px; margin: 22px 0 12px;
  background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { background: var(--paper); padding: 11px 15px; } .facts b { display: block; font-weight: 600; }
.facts span { color: var(--soft); font-size: 12.5px; }
table { border-collapse: collapse; width: 100%; margin: 12px 0 4px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 12px; color: var(--soft); padding: 6px 10px; white-space: nowrap; }
td { padding: 5px 10px; border-top: 1px solid var(--line); vertical-align: middle; }
tr:hover td { background: var(--band); } td.n, th.n { text-align: right; white-space: nowrap; }
td.n b { font-weight: 650; } td.what { min-width: 230px; }
td.beside { font-size: 13px; min-width: 250px; } td small { display: block; line-height: 1.2; }
.tag { display: inline-block; padding: 1px 8px; border-radius: 20px; font-size: 12px; font-weight: 600;
  white-space: nowrap; border: 1px solid currentColor; }
.tag.met { color: var(--good); } .tag.missed { color: var(--bad); }
svg { display: block; } .decade { stroke: var(--line); } .spread { stroke: var(--mark); stroke-width: 3; opacity: 0.4; }
.value { fill: var(--mark); } .value.met { fill: var(--good); } .value.missed { fill: var(--bad); }
.floor { fill: var(--floor); } .rival { fill: var(--rival); } .target { stroke: var(--ink); stroke-dasharray: 3 2; }
.key { display: flex; gap: 20px; flex-wrap: wrap; font-size: 12.5px; color: var(--soft); align-items: center; }
.key span { display: inline-flex; gap: 6px; align-items: center; } .wide { overflow-x: auto; }
"""

KEY = (
    ('<circle class="value plain" cx="7" cy="7" r="5"/>', "median"),
    ('<line class="spread" x1="0" x2="14" y1="7" y2="7"/>', "least to p99, or of rounds"),
    ('<path class="floor" d="M7 2l5 8h-10z"/>', "floor: nothing can do without"),
    ('<path class="rival" d="M7 2l5 5l-5 5l-5 -5z"/>', "rival"),
    ('<line class="target" x1="7" x2="7" y1="0" y2="14"/>', "target"),
)


def page(report: Report) -> str:
    """The whole page."""
    body = [_head(report), _targets(report), *map(_section, report.sections)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>dsfast {escape(report.machine.dsfast)}, benchmarks</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _head(report: Report) -> str:
    here = report.machine
    facts = (
        ("machine", f"{here.cores} cores of {here.cpu}"),
        ("system", f"{here.system}, Python {here.python}"),
        ("dsfast", f"{here.dsfast}, {report.commit}"),
        ("taken", f"{report.taken_at}, in {report.seconds:,.0f} s{', short' if report.short else ''}"),
        ("load before and after", f"{here.load:g}, {report.load_after:g}"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
    )
    cells = "".join(f"<div><span>{name}</span><b>{escape(value)}</b></div>" for name, value in facts)
    key = "".join(
        f'<span><svg width="14" height="14" viewBox="0 0 14 14">{mark}</svg>{text}</span>' for mark, text in KEY
    )
    failed = "".join(f'<p class="tag missed">failed: {escape(name)}</p>' for name in report.failed)
    return (
        "<h1>Benchmarks of dsfast</h1>"
        '<p class="soft">Compare by ratio within this page: machines differ, and a shared one differs from minute to '
        f'minute.</p><div class="facts">{cells}</div>{failed}<div class="key">{key}</div>'
    )


def _targets(report: Report) -> str:
    judged = [figure for section in report.sections for figure in section.figures if figure.target is not None]
    if not judged:
        return ""
    met = sum(bool(figure.met) for figure in judged)
    missed = [figure for figure in judged if not figure.met]
    rows = "".join(
        f'<tr><td class="what">{escape(figure.what)}</td><td class="n"><b>{number(figure.value)}</b> '
        f'{escape(figure.unit)}</td><td class="n">{_target(figure)}</td><td class="n">{_by_how_much(figure)}</td></tr>'
        for figure in missed
    )
    table = (
        '<table><tr><th>missed</th><th class="n">measured</th><th class="n">target</th><th class="n">by</th></tr>'
        f"{rows}</table>"
    )
    return f"<h2>Targets: {met} of {len(judged)} met</h2>{table if missed else ''}"


def _by_how_much(figure: Figure) -> str:
    if not figure.target or not figure.value:
        return ""
    times = figure.target / figure.value if figure.more_is_better else figure.value / figure.target
    return f"{number(times)} times"


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    return f"{'at least' if figure.more_is_better else 'at most'} {number(figure.target)}"


def _section(section: Section) -> str:
    scale = scales(section.figures)
    rows = "".join(_row(figure, picture(figure, scale.get(figure.unit))) for figure in section.figures)
    durable = sorted({figure.durable for figure in section.figures if figure.durable})
    commits = f"<p><small>commits: {escape('; '.join(durable))}</small></p>" if durable else ""
    head = (
        '<tr><th>what</th><th class="n">median</th><th class="n">p95, p99</th><th></th><th>beside it</th><th></th></tr>'
    )
    return (
        f"<h2>{escape(section.question)}</h2><code>{escape(section.command)}</code>{commits}"
        f'<div class="wide"><table>{head}{rows}</table></div>{_notes(section)}'
    )


def _row(figure: Figure, drawn: str) -> str:
    tail = ""
    if figure.p95 is not None and figure.p99 is not None:
        tail = f"{number(figure.p95)}, {number(figure.p99)}"
    verdict = ""
    if figure.met is not None:
        word = "met" if figure.met else "missed"
        verdict = f'<span class="tag {word}">{_target(figure)}: {word}</span>'
    commits = (
        f'<small title="{escape(figure.durable)}">{escape(_short(figure.durable))}</small>' if figure.durable else ""
    )
    return (
        f'<tr><td class="what">{escape(figure.what)}{commits}</td><td class="n"><b>{number(figure.value)}</b> '
        f'{escape(figure.unit)}</td><td class="n">{tail}</td><td>{drawn}</td>'
        f'<td class="beside">{_besides(figure)}</td><td>{verdict}</td></tr>'
    )


def _short(durable: str) -> str:
    """How durable, in a few words; the whole is above the table."""
    durable_words = ("synchronous=FULL", "fsync=on", "innodb_flush_log_at_trx_commit=1")
    synced = any(word in durable for word in durable_words)
    return "every commit with fsync" if synced else f"commits: {durable}"


def _besides(figure: Figure) -> str:
    texts = []
    if figure.floor is not None:
        times = figure.times_floor
        far = f", {number(times)} times that" if times is not None else ""
        texts.append(f"{escape(figure.floor.about)}: {number(figure.floor.value)}{far}")
    if figure.rival is not None:
        texts.append(f'<span class="soft">{escape(figure.rival.about)}: {number(figure.rival.value)}</span>')
    return "<br>".join(texts)


def _notes(section: Section) -> str:
    rows = "".join(
        f'<tr><td class="what">{escape(name)}</td><td>'
        + " &middot; ".join(f"{escape(key)} <b>{number(value)}</b>" for key, value in told.items())
        + "</td></tr>"
        for name, told in section.notes.items()
    )
    return f'<div class="wide"><table><tr><th>also noted</th><th></th></tr>{rows}</table></div>' if rows else ""
