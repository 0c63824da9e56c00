"""The looks of a page and what its elements do: one style sheet and one script for all reports.

Text has a contrast of 4.5 to 1 or more on the page, in light and in dark, lines of charts 3 to 1; tests compute both.
"""

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --faint: #5c636b; --line: #d5d9de; --page: #fff; --card: #f6f7f9;
  --accent: #0b63b0; --warn: #8f3b00; --s0: #0072b2; --s1: #c05500; --s2: #007d5a; --s3: #a8457f; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6e9; --faint: #a3aab3; --line: #3a3f46; --page: #17191c; --card: #1f2226; --accent: #7cc0f5;
    --warn: #ffb27a; --s0: #56b4e9; --s1: #e69f00; --s2: #2cc398; --s3: #dd8fbb; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 88rem; padding: 1.5rem clamp(0.75rem, 3vw, 2.5rem); color: var(--text);
  background: var(--page); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.25rem 0 0.75rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 0.5rem; overflow-wrap: anywhere; }
p { max-width: 60rem; overflow-wrap: anywhere; }
.warning { color: var(--warn); font-weight: 600; }
figure { margin: 0; min-width: 0; }
figcaption, footer, .legend, output { color: var(--faint); font-size: 0.875rem; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 0.9rem 1rem;
  margin: 0 0 1rem; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
/* Four stand two by two rather than three and one. */
@media (min-width: 50rem) { .grid:has(> :nth-child(4):last-child) { grid-template-columns: 1fr 1fr; } }
.grid.tables :is(td, th):not(:first-child) { white-space: nowrap; }
.grid.tables td:first-child { white-space: normal; min-width: 9.5rem; }
.grid.tables table { font-size: 0.85rem; } .grid.tables :is(td, th) { padding-right: 0.75rem; }
.grid.tables { grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), max-content)); margin-bottom: 1rem; }
.grid .card { margin: 0; max-width: 46rem; }
.grid .broad { grid-column: 1 / -1; max-width: none; }
.frame { overflow-x: auto; }
.frame img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
.card figcaption { margin-top: 0.5rem; }
/* Charts have a white background: in the dark their lightness is turned over, their hues stay. */
.chart .frame { background: #fff; border-radius: 4px; }
@media screen and (prefers-color-scheme: dark) { .chart .frame { filter: invert(0.91) hue-rotate(180deg); } }
svg.lines { display: block; width: 100%; height: auto; font-size: 15px; }
svg.lines text { fill: var(--faint); }
svg.lines .axis { stroke: var(--faint); } svg.lines .rule { stroke: var(--line); }
svg.lines path { fill: none; stroke-width: 2; stroke-linejoin: round; } svg.lines path.raw { opacity: 0.35;
  stroke-width: 1; }
.s0 { stroke: var(--s0); color: var(--s0); } .s1 { stroke: var(--s1); color: var(--s1); }
.s2 { stroke: var(--s2); color: var(--s2); } .s3 { stroke: var(--s3); color: var(--s3); }
circle.s0 { fill: var(--s0); } circle.s1 { fill: var(--s1); } circle.s2 { fill: var(--s2); }
circle.s3 { fill: var(--s3); }
.badge { display: inline-block; padding: 0 0.5rem; margin-right: 0.4rem; border-radius: 4px; background: var(--text);
  color: var(--page); font-size: 0.875rem; }
.planes { display: flex; flex-wrap: wrap; gap: 0.75rem; align-items: flex-start; }
.plane { min-width: 0; }
.picture { position: relative; background: #000; border-radius: 4px; overflow: hidden; line-height: 0; }
.picture svg { display: block; width: 100%; height: auto; cursor: ns-resize; }
.picture path { fill: none; stroke-width: 1.6; vector-effect: non-scaling-stroke; }
.picture span { position: absolute; color: #fff; font: 600 0.875rem/1 system-ui, sans-serif;
  text-shadow: 0 0 3px #000, 0 0 3px #000; pointer-events: none; }
.picture .left { left: 0.3rem; top: 50%; } .picture .top { left: 50%; top: 0.3rem; }
.picture .bar { right: 0.6rem; bottom: 0.5rem; border-bottom: 2px solid #fff; text-align: center;
  padding-bottom: 0.2rem; font-weight: 400; min-width: 2px; }
.plane input { width: 100%; margin: 0.5rem 0 0; accent-color: var(--accent); }
output { display: block; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0 0 0.6rem; }
.legend label { display: inline-flex; gap: 0.4rem; align-items: center; }
.legend input { margin: 0; accent-color: var(--accent); }
/* Outlines are drawn on black pictures: their samples are too. */
.swatch { display: inline-block; width: 2.2em; height: 1em; border-radius: 3px; background: #000; position: relative; }
.swatch i { position: absolute; left: 0.3em; right: 0.3em; top: calc(50% - 1px); border-top: 2px solid; }
.swatch.plain { background: none; vertical-align: -0.1em; }
.swatch.plain i { left: 0; right: 0; border-color: currentColor; }
.wide { overflow-x: auto; }
.wide + .wide { margin-top: 1rem; }
.wide.long { width: fit-content; max-width: 100%; max-height: 85vh; overflow-y: auto;
  border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 1.25rem 0.3rem 0; text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); }
.number { text-align: right; }
td.number, td:first-child { white-space: nowrap; }
.long table { font-size: 0.84rem; }
.long th, .long td { padding: 0.25rem 0.5rem; }
.long th { position: sticky; top: 0; background: var(--card); z-index: 2; }
.long :is(th, td):first-child { position: sticky; left: 0; background: var(--card); }
.long th:first-child { z-index: 3; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; }
th button::after { content: "\\a0\\2195"; opacity: 0.6; }
th[aria-sort="ascending"] button::after { content: "\\a0\\2191"; opacity: 1; }
th[aria-sort="descending"] button::after { content: "\\a0\\2193"; opacity: 1; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) minmax(0, 1fr); gap: 0.35rem 1.25rem;
  max-width: 70rem; font-size: 0.9rem; margin: 0; }
dt { font-weight: 600; max-width: 20rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dd code { font-size: 0.85rem; white-space: pre-wrap; }
footer { margin-top: 2.5rem; padding-top: 0.75rem; border-top: 1px solid var(--line); }
@media (max-width: 40rem) {
  td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
  th, td { padding-right: 0.6rem; }
  .card { padding: 0.6rem; }
  .planes { flex-direction: column; } .plane { width: 100%; flex: none !important; }
  dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: 0.4rem; }
  /* A broad picture keeps a size at which it can be read, and is scrolled. */
  .broad .frame img { max-width: none; width: 44rem; }
}
@media print {
  :root { color-scheme: light; --text: #000; --faint: #444; --line: #bbb; --page: #fff; --card: #fff;
    --accent: #000; --warn: #8f3b00; --s0: #0072b2; --s1: #c05500; --s2: #007d5a; --s3: #a8457f; }
  @page { margin: 10mm; }
  body { max-width: none; padding: 0; font-size: 9pt; line-height: 1.3; }
  h1 { font-size: 14pt; margin: 0 0 0.4rem; }
  h2 { font-size: 10.5pt; margin: 0.6rem 0 0.2rem; break-after: avoid; }
  h3 { break-after: avoid; }
  p { max-width: none; margin: 0.25rem 0; }
  table, dl { font-size: 8pt; }
  th, td, .long th, .long td { padding: 0.06rem 0.6rem 0.06rem 0; white-space: normal; position: static !important; }
  .wide, .frame, .wide.long { overflow: visible; max-height: none; border: 0; }
  .card { border: 0; padding: 0; margin: 0 0 0.4rem; }
  .grid { grid-template-columns: 1fr 1fr; gap: 0.6rem; }
  tr, figure { break-inside: avoid; }
  .plane input, .legend input { display: none; }
  th button::after { content: none; }
  .picture, .swatch, .badge { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  figcaption, footer { font-size: 8pt; }
  footer { margin-top: 0.5rem; padding-top: 0.25rem; }
}
"""

SCRIPT = """
"use strict";
for (const plane of document.querySelectorAll(".plane")) {
  const svg = plane.querySelector("svg"), range = plane.querySelector("input");
  if (!range) continue;
  const output = plane.querySelector("output"), names = JSON.parse(range.dataset.names);
  const [x, , width, height] = svg.getAttribute("viewBox").split(" ");
  const show = () => {
    svg.setAttribute("viewBox", [x, range.value * range.dataset.pitch, width, height].join(" "));
    output.textContent = names[range.value];
    range.setAttribute("aria-valuetext", names[range.value]);
  };
  range.addEventListener("input", show);
  svg.addEventListener("click", () => range.focus());
  // The wheel belongs to the page until a picture was clicked.
  svg.addEventListener("wheel", (event) => {
    if (document.activeElement !== range) return;
    event.preventDefault();
    event.deltaY > 0 ? range.stepUp() : range.stepDown();
    show();
  }, { passive: false });
  show();
}
for (const box of document.querySelectorAll(".legend input")) {
  box.addEventListener("change", () => {
    const paths = box.closest("figure").querySelectorAll(`path[data-outline="${box.dataset.outline}"]`);
    for (const path of paths) path.style.display = box.checked ? "" : "none";
  });
}
const value = (row, column) => {
  const text = row.cells[column].textContent;
  if (text === "n/a" || text === "" || text === "-") return null;
  const number = Number(text.replace("\\u221e", "Infinity"));
  return Number.isNaN(number) ? text : number;
};
const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
  : String(a).localeCompare(String(b), "en", { numeric: true });
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [value(row, head.cellIndex), row]);
    // What has no value comes last, whichever way.
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * order(a, b));
    body.append(...rows.map(([, row]) => row));
  });
}
"""
