"""The style sheet of a report: light, dark by the reader's preference, and print. Everything is in the page; nothing is loaded."""

from __future__ import annotations

_LIGHT = """
color-scheme:light;--ground:#fff;--text:#1b1f24;--quiet:#57606a;--rule:#d0d7de;--shade:#f3f5f8;--accent:#0b5cad;
--p50:#57606a;--bad:#b3261e;--good:#1a7f37;--limit:#9a6700;
--client:#8c959f;--outside:#0072b2;--decode:#56b4e9;--queue:#d55e00;--run:#009e73;--reply:#cc79a7;"""
_DARK = """
color-scheme:dark;--ground:#14171b;--text:#e8eaed;--quiet:#a5afba;--rule:#3a424c;--shade:#1d2228;--accent:#6cb2ff;
--p50:#a5afba;--bad:#ff8a80;--good:#6fd08c;--limit:#e8b84a;
--client:#7d8793;--outside:#3f9bd9;--decode:#8fd0f5;--queue:#f0883e;--run:#3fbf93;--reply:#e29cc4;"""
_RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}
header .when,.quiet{color:var(--quiet)}
h1{font-size:1.15rem;font-weight:600;color:var(--quiet);margin:0}
h2{font-size:1.15rem;margin:2.75rem 0 .5rem;border-top:1px solid var(--rule);padding-top:1.25rem}
.answer{color:var(--text);font-size:1.75rem;line-height:1.3;font-weight:650;margin:.6rem 0 .8rem;text-wrap:balance}
.answer.bad{border-left:5px solid var(--bad);padding-left:.9rem}
.answer.good{border-left:5px solid var(--good);padding-left:.9rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(12.5rem,1fr));gap:.75rem;margin:1.25rem 0}
.facts div{background:var(--shade);border-radius:8px;padding:.7rem .9rem}
.facts dt{color:var(--quiet);font-size:.85rem}
.facts dd{margin:0;font-size:1.1rem;font-weight:600;overflow-wrap:anywhere}
figure{margin:1rem 0;overflow-x:auto}
svg{width:100%;min-width:34rem;height:auto;display:block}
svg text{fill:var(--text);font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
svg .tick{fill:var(--quiet);font-size:12px}
svg .name{fill:var(--quiet);font-size:12px}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .axis{stroke:var(--quiet);stroke-width:1}
svg .limit{stroke:var(--limit);stroke-width:1.5;stroke-dasharray:6 4}
svg .limit-name{fill:var(--limit);font-size:12px;font-weight:600;paint-order:stroke;stroke:var(--ground);stroke-width:4px}
svg path{fill:none;stroke-width:2;stroke-linejoin:round}
svg .line-main,svg .whisker{stroke:var(--accent)}
svg .whisker{stroke-width:1.5}
svg .line-p50{stroke:var(--p50);stroke-width:1.75}
line.line-p50,line.line-main{stroke-width:2}
svg .mark-main{fill:var(--accent);stroke:var(--accent)}
svg .mark-p50{fill:var(--p50);stroke:var(--p50)}
svg .mark-fail{stroke:var(--bad);fill:var(--bad)}
svg .ring{fill:var(--ground);stroke-width:2}
svg .cross{fill:none;stroke-width:2.5}
svg .warm-up{fill:var(--shade)}
svg .spectrum-0{stroke:var(--accent)}
svg .spectrum-1{stroke:var(--run);stroke-dasharray:9 3}
svg .spectrum-2{stroke:var(--queue);stroke-dasharray:3 3}
svg .phase-client{fill:var(--client)}svg .phase-outside{fill:var(--outside)}svg .phase-decode{fill:var(--decode)}
svg .phase-queue{fill:var(--queue)}svg .phase-run{fill:var(--run)}svg .phase-reply{fill:var(--reply)}
.wide{overflow-x:auto}
table{margin:.5rem 0 1.25rem;border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--quiet);padding-bottom:.3rem}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--quiet);font-weight:600}
th:first-child,td:first-child,td.words,th.words{text-align:left}
td.words,th.words{white-space:normal;overflow-wrap:anywhere}
td.pass{color:var(--good);font-weight:600}td.fail{color:var(--bad);font-weight:600}
pre{background:var(--shade);border-radius:8px;padding:.9rem;overflow-x:auto;font-size:.85rem;white-space:pre-wrap;overflow-wrap:anywhere}
li{margin:.3rem 0;overflow-wrap:anywhere}
"""
_PRINT = """
body{font-size:11pt}main{max-width:none;padding:0}
h2,section>.quiet{break-after:avoid}h2{margin-top:1.4rem;padding-top:.8rem}
figure,table,.facts,li{break-inside:avoid}.wide{overflow:visible}
th,td{padding:.2rem .35rem;font-size:8.5pt}
svg{max-height:9cm;min-width:0}figure{overflow:visible}
p.quiet,pre{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
"""

SHEET = (
    f":root{{{_LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{@media screen{{:root{{{_DARK}}}}}}}"
    f"{_RULES}@page{{margin:1.6cm}}@media print{{{_PRINT}}}"
)
"""A page is printed in light colours whatever the reader prefers on the screen."""
