import { drawsOnProcessor, holdDrawing, scene, volume } from "./host.js";

const $ = (id) => document.getElementById(id);
// The values of a mask as it is served: 1 liver, 2 tumour; 3 and 4 their outlines.
const COLORS = { mask: [[86, 180, 233], [230, 159, 0]], reference: [[0, 158, 115], [240, 228, 66]] };
const NAMES = { liver: "liver", tumor: "tumours" };
// A scan of more voxels is not rendered in 3D by a processor before it is asked to.
const RENDERED = 2 ** 21;
const VIEWS = { 1: 3, 2: 0, 3: 1, 4: 2, 5: 4 };
const began = performance.now();
let model, volumes = [], facts, vox = [0, 0, 0], shown = true;

function make(tag, text = "", settings = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  return Object.assign(element, settings);
}

function problem(text) {
  $("problem-text").textContent = text;
  $("problem").hidden = false;
  $("state").hidden = true;
  document.body.dataset.state = "failed";
}

async function fetched(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error("liverjax view does not answer any more; start it again");
  }
  if (answer.ok) return answer;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  throw new Error(page.getElementById("error")?.textContent ?? `status ${answer.status}`);
}

function lut(layer) {
  // NiiVue draws a label or leaves it out: how opaque all of them are is a matter of the layer.
  const colors = COLORS[layer.reference ? "reference" : "mask"], fill = $("fill").checked ? 255 : 0;
  const rows = [[0, 0, 0, 0], ...[fill, 255].flatMap((alpha) => colors.map((color) => [...color, alpha]))];
  return { lut: rows.flat(), min: 0, max: 4 };
}

function place(target) {
  const clamped = target.map((value, axis) => Math.max(0, Math.min(facts.shape[axis] - 1, value)));
  model.change("scene", { crosshairPos: clamped.map((value, axis) => (value + 0.5) / facts.shape[axis]) });
  model.tell("move_crosshair_in_vox", [0, 0, 0]);
}

const move = (x, y, z) => place([vox[0] + x, vox[1] + y, vox[2] + z]);

function moved(message) {
  if (message.event !== "location_change") return;
  vox = message.data.vox.map(Math.round);
  const values = message.data.values?.[0]?.value;
  $("state").textContent = `axial ${vox[2] + 1} of ${facts.shape[2]}, coronal ${vox[1] + 1}, sagittal ${vox[0] + 1}`
    + (Number.isFinite(values) ? `; intensity ${+values.toFixed(1)}` : "");
  document.body.dataset.voxel = vox.join(",");
  for (const button of document.querySelectorAll("#slices button, #lesions button")) {
    const at = button.dataset.voxel ?? `,,${button.dataset.z}`;
    const here = at.split(",").every((value, axis) => value === "" || +value === vox[axis]);
    button.setAttribute("aria-current", here);
  }
}

function listLayers() {
  facts.layers.forEach((layer, index) => {
    const box = make("input", "", { type: "checkbox", checked: layer.kind !== "doubt", id: `layer-${index}` });
    const label = make("label", "", { htmlFor: box.id });
    label.append(box, make("span", layer.kind === "doubt" ? "uncertainty (entropy)" : layer.name));
    const block = make("div", "", { className: "layer" });
    block.append(label);
    if (layer.kind === "doubt") {
      const legend = make("div", "20 % to 100 % of the greatest", { className: "legend" });
      block.append(legend);
    } else {
      const legend = make("div", "", { className: "legend" });
      ["liver", "tumour"].forEach((name, region) => {
        const swatch = make("i", "", { className: "swatch" });
        swatch.style.background = `rgb(${COLORS[layer.reference ? "reference" : "mask"][region]})`;
        const entry = make("span");
        entry.append(swatch, name);
        legend.append(entry);
      });
      block.append(legend);
    }
    box.addEventListener("change", () => show(index));
    $("layers").append(block);
  });
  if (!facts.layers.length) $("layers-section").hidden = true;
}

function show(index) {
  const on = shown && $(`layer-${index}`).checked;
  const opacity = $("opacity").value / 100;
  volumes[index + 1].change("opacity", on ? (facts.layers[index].kind === "doubt" ? 0.6 * opacity : opacity) : 0);
}

function listVolumes() {
  const names = Object.keys(facts.volumes), table = $("volumes");
  const head = table.createTHead().insertRow();
  head.append(make("th", "Mask"), make("th", "Liver", { className: "number" }), make("th", "Tumours", { className: "number" }));
  for (const name of names) {
    const row = table.insertRow();
    row.append(make("td", name));
    for (const region of ["liver", "tumor"]) row.append(make("td", facts.volumes[name][region].toFixed(1), { className: "number" }));
  }
  table.closest("section").hidden = !names.length;
}

function item(list, words, share, value, target, data) {
  const button = make("button", "", { type: "button" });
  Object.assign(button.dataset, data);
  const bar = make("div", "", { className: "bar" }), filled = make("i");
  filled.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  bar.append(filled);
  button.append(make("span", words), bar, make("span", value, { className: "value" }));
  button.addEventListener("click", target);
  const entry = make("li");
  entry.append(button);
  list.append(entry);
}

function listLesions() {
  const largest = facts.lesions[0]?.ml;
  facts.lesions.forEach((lesion, index) => item($("lesions"), `${index + 1}, ${lesion.diameter_mm.toFixed(0)} mm`,
    lesion.ml / largest, `${lesion.ml.toFixed(lesion.ml < 10 ? 2 : 1)} ml`, () => place(lesion.voxel), { voxel: lesion.voxel.join(",") }));
  if (!facts.lesions.length) $("lesions").replaceWith(make("p", "The mask has no tumour.", { className: "none" }));
  $("lesions-section").hidden = !facts.layers.some((layer) => layer.kind === "mask");
}

function listSlices() {
  const most = Math.max(1, ...facts.slices.map((row) => row.area_mm2));
  const ranked = facts.slices.some((row) => row.quality !== null);
  $("measure").textContent = ranked ? `${facts.measure}, the worst first` : facts.measure;
  for (const row of facts.slices) {
    const value = ranked ? row.quality.toFixed(3) : `${(row.area_mm2 / 100).toFixed(0)} cm²`;
    item($("slices"), `axial ${row.voxel[2] + 1}`, ranked ? row.quality : row.area_mm2 / most, value,
      () => place(row.voxel), { z: row.voxel[2] });
  }
  $("slices-section").hidden = !facts.slices.length;
}

function step(list, by) {
  const buttons = [...document.querySelectorAll(`#${list} button`)];
  const here = buttons.findIndex((button) => button.getAttribute("aria-current") === "true");
  const next = buttons[here < 0 ? (by > 0 ? 0 : buttons.length - 1) : (here + by + buttons.length) % buttons.length];
  next?.click();
  next?.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  ArrowUp: (event) => (event.shiftKey ? move(0, 1, 0) : move(0, 0, 1)),
  ArrowDown: (event) => (event.shiftKey ? move(0, -1, 0) : move(0, 0, -1)),
  ArrowLeft: () => move(-1, 0, 0), ArrowRight: () => move(1, 0, 0),
  PageUp: () => move(0, 0, 10), PageDown: () => move(0, 0, -10),
  n: () => step("slices", 1), p: () => step("slices", -1), l: () => step("lesions", 1),
  m: () => { shown = !shown; showAll(); },
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=range]")) return;
  const act = KEYS[event.key] ?? (event.key in VIEWS && (() => view(VIEWS[event.key])));
  if (!act) return;
  event.preventDefault();
  event.stopPropagation();
  act(event);
}

function view(kind, settings = {}) {
  model.change("opts", { ...model.get("opts"), sliceType: kind, ...settings });
  model.tell("draw_scene");
}

// Changes several settings of volumes, and prepares the volumes once.
function together(changes) {
  const draw = holdDrawing();
  try {
    changes();
  } finally {
    draw();
  }
  model.tell("update_gl_volume");
}

const showAll = () => together(() => facts.layers.forEach((_, index) => show(index)));

function recolor() {
  together(() => facts.layers.forEach((layer, index) => {
    if (layer.kind === "mask") volumes[index + 1].change("colormap_label", lut(layer));
  }));
}

async function main() {
  const program = import("./niivue.js");
  const cases = await (await fetched("cases.json")).json();
  const number = Math.min(cases.length - 1, Math.max(0, Number(new URLSearchParams(location.search).get("case")) || 0));
  cases.forEach((one, index) => {
    const scored = one.scores.liver !== undefined, dice = scored ? one.scores.liver : one.expected_dice;
    const label = dice === null ? "" : ` (${scored ? "Dice" : "expected Dice"} ${dice.toFixed(3)})`;
    $("case").append(make("option", one.name + label, { value: index, selected: index === number }));
  });
  $("case").addEventListener("change", () => { location.search = `?case=${$("case").value}`; });
  document.title = `${cases[number].name}, liverjax`;
  facts = await (await fetched(`case/${number}`)).json();
  facts.layers.forEach((layer) => { layer.reference = layer.name === "reference"; });
  const scores = Object.entries(facts.scores).map(([region, dice]) => `Dice of the ${NAMES[region]} ${dice.toFixed(3)}. `);
  $("about").textContent = `${scores.join("")}${facts.shape.join(" x ")} voxels. Patient's right is on the left.`;
  listLayers();
  listVolumes();
  listLesions();
  listSlices();
  const [low, high] = facts.window;
  volumes = [volume("v0", "scan.nii", `volume/${number}/0.nii`, { cal_min: low, cal_max: high })];
  facts.layers.forEach((layer, index) => volumes.push(volume(`v${index + 1}`, `layer${index}.nii`,
    `volume/${number}/${index + 1}.nii`, layer.kind === "doubt"
      ? { colormap: "inferno", cal_min: 51, cal_max: 255, opacity: 0 }
      : { cal_min: 0, cal_max: 4, colormap_label: lut(layer), opacity: $("opacity").value / 100 })));
  model = scene(volumes, {
    isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairColor: [0.9, 0.9, 0.2, 0.7], crosshairWidth: 0.6, crosshairWidthUnit: "mm",
    multiplanarShowRender: 0, sliceType: 3, multiplanarLayout: 2, dragMode: 1, isNearestInterpolation: false, isOrientationTextVisible: true,
    show3Dcrosshair: true, loadingText: "", textHeight: 0.04, isResizeCanvas: true, isAntiAlias: false,
  });
  model.heard = moved;
  performance.mark("described");
  const { default: widget } = await program;
  performance.mark("program");
  const draw = holdDrawing();
  try {
    await widget.initialize({ model });
    await widget.render({ model, el: $("canvas") });
  } finally {
    draw();
  }
  performance.mark("loaded");
  model.tell("update_gl_volume");
  performance.mark("drawn");
  for (const [index, one] of volumes.entries()) if (!one.get("dims_ras")) await fetched(`volume/${number}/${index}.nii`);
  $("fill").addEventListener("change", recolor);
  $("opacity").addEventListener("input", showAll);
  window.addEventListener("keydown", pressed, true);
  if (facts.slices.length) $("slices").querySelector("button").click();
  else place(facts.shape.map((count) => Math.floor(count / 2)));
  document.body.dataset.seconds = ((performance.now() - began) / 1000).toFixed(2);
  document.body.dataset.state = "ready";
  $("view").focus();
  // The planes come first. Where the processor draws, the rendering waits for its key.
  if (facts.shape.reduce((all, count) => all * count) > RENDERED && drawsOnProcessor()) $("about").textContent += " The 3D rendering is on key 5: this browser draws on the processor, slowly.";
  else requestAnimationFrame(() => view(3, { multiplanarShowRender: 1 }));
}

main().catch((error) => problem(error.message));
