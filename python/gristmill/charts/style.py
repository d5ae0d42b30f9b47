"""The one style of all pages."""

from __future__ import annotations

__all__ = ["STYLE"]

_LIGHT = (
    "--paper:#f6f7f5;--card:#fff;--ink:#1d2622;--soft:#5a6762;--line:#dfe4e0;--grid:#e9edea;"
    "--own:#2f7f86;--peer:#97a29d;--best:#0b7a4b;--best-bg:#e5f4ec;--loss:#b3372b;"
    "--s0:#2f7f86;--s1:#c4621b;--s2:#5b57b5;--s3:#b0417c;--s4:#5d7f1e;--s5:#2f6fb7;--s6:#8a6a2f;--s7:#6b7672"
)
_DARK = (
    "--paper:#121715;--card:#1a211e;--ink:#e6ece8;--soft:#9aa8a1;--line:#2e3833;--grid:#252e2a;"
    "--own:#4fb0b5;--peer:#6d7a74;--best:#43c98a;--best-bg:#15352a;--loss:#f08a7c;"
    "--s0:#4fb0b5;--s1:#e58f4b;--s2:#9c98ee;--s3:#e07fb3;--s4:#9dbf56;--s5:#6ba6ea;--s6:#cda765;--s7:#a3b0aa"
)
_TONES = "".join(
    f".fill.{tone}{{fill:var(--{tone})}}.stroke.{tone}{{stroke:var(--{tone})}}.name.{tone}{{fill:var(--{tone})}}"
    for tone in ("own", "peer", "best", "loss", *(f"s{i}" for i in range(8)))
)

STYLE = (
    f":root{{{_LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--paper);color:var(--ink);"
    "font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}"
    "main{max-width:960px;margin:0 auto;padding:3rem 1.5rem 2rem}"
    "header{margin-bottom:2rem}h1{font-size:2rem;line-height:1.2;letter-spacing:-.02em;margin:0 0 .4rem}"
    ".lead{color:var(--soft);font-size:1.05rem;margin:0}"
    "section{margin:2.2rem 0}h2{font-size:1.2rem;letter-spacing:-.01em;margin:0 0 .7rem}"
    "p{margin:.5rem 0;max-width:48rem}"
    "figure,.wide,.tile,details{background:var(--card);border:1px solid var(--line);border-radius:12px}"
    "figure{margin:0 0 1rem;padding:1rem 1.25rem 1.1rem;overflow-x:auto}"
    "figcaption{font-weight:600;margin-bottom:.6rem}"
    "svg{display:block;width:100%;min-width:560px;height:auto;overflow:visible}"
    "svg text{font-size:13px;fill:var(--ink);dominant-baseline:central;"
    "paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}"
    "svg .heading{font-weight:600}svg .tick,svg .title{fill:var(--soft);font-size:12px}"
    "svg .figure{font-variant-numeric:tabular-nums}svg .figure.best,svg .name{font-weight:600}"
    "svg .figure.best{fill:var(--best)}svg .figure.loss{fill:var(--loss)}"
    "svg .axis{stroke:var(--soft);stroke-opacity:.55}svg .grid{stroke:var(--grid)}"
    "svg .reach{fill:none;stroke:var(--soft);stroke-width:1.3}"
    "svg .stroke{fill:none;stroke-width:2.2;stroke-linejoin:round}"
    "svg .mark{stroke:var(--card);stroke-width:1.2}"
    "svg .level{fill:none;stroke:var(--soft);stroke-width:1.2;stroke-dasharray:5 4}"
    "svg .roof{fill:none;stroke:var(--soft);stroke-width:1.6}svg .roof-name{fill:var(--soft);font-size:12px}"
    f"{_TONES}"
    ".wide{overflow-x:auto;margin:0 0 1rem}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.92rem}"
    "caption{text-align:left;font-weight:600;padding:.9rem 1.25rem .4rem}"
    "th,td{padding:.42rem .7rem;white-space:nowrap;border-top:1px solid var(--grid)}"
    "th:first-child,td:first-child{padding-left:1.25rem}th:last-child,td:last-child{padding-right:1.25rem}"
    "th{color:var(--soft);font-weight:500;border-top:0}.left{text-align:left}.right{text-align:right}"
    "td:last-child.left{white-space:normal;min-width:10rem}"
    "tr.winner td{background:var(--best-bg)}"
    "tr.winner td:first-child{box-shadow:inset 3px 0 var(--best);font-weight:600}"
    "td.bold,td.bold.green{font-weight:600}td.green{color:var(--best)}td.red{color:var(--loss)}"
    "td.dim{color:var(--soft)}td.yellow{color:var(--s1)}td.cyan{color:var(--s0)}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:.8rem;margin:0 0 1rem}"
    ".tile{padding:.9rem 1.1rem}.tile-label,.tile-note{color:var(--soft);font-size:.85rem}"
    ".tile-value{font-size:1.75rem;font-weight:650;letter-spacing:-.02em;line-height:1.3}"
    ".tile-value.best{color:var(--best)}.tile-value.loss{color:var(--loss)}"
    ".notes{color:var(--soft);padding-left:1.1rem;margin:.6rem 0}.notes li{margin:.2rem 0}"
    "details{padding:.7rem 1.25rem;margin:0 0 1rem}summary{cursor:pointer;font-weight:600}"
    "details .wide,details figure{border:0;padding:0;margin:.8rem 0 0}"
    "footer{color:var(--soft);font-size:.85rem;border-top:1px solid var(--line);margin-top:2.5rem;padding-top:1rem}"
    "@media print{:root{" + _LIGHT + "}body{background:#fff}main{padding:0}figure,.wide,.tile{break-inside:avoid}}"
)
