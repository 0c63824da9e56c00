// What a notebook gives to NiiVue's widget (the protocol of anywidget), as far as the widget asks for it: models with
// fields, of which it is told when they change, and messages. So the widget is used as it is installed.

export class Model {
  constructor(fields, others = new Map()) {
    this.fields = fields;
    this.handlers = new Map();
    this.widget_manager = { get_model: async (id) => others.get(id) };
    this._comm_live = false; // Nobody wants the voxels back.
  }
  get(name) { return this.fields[name]; }
  set(name, value) { this.fields[name] = value; }
  save_changes() {}
  send_sync_message() {}
  on(event, handler) { this.handlers.set(event, [...(this.handlers.get(event) ?? []), handler]); }
  off(event, handler) {
    this.handlers.set(event, (this.handlers.get(event) ?? []).filter((one) => handler && one !== handler));
  }
  // From the widget.
  send(message) { this.heard?.(message); }
  // To the widget.
  change(name, value) {
    this.fields[name] = value;
    this.emit(`change:${name}`);
  }
  tell(type, data = []) { this.emit("msg:custom", { type, data }, []); }
  emit(event, ...words) { for (const handler of this.handlers.get(event) ?? []) handler(...words); }
}

export function volume(id, name, url, settings) {
  return new Model({
    id, name, url, path: {}, data: null, paired_img_path: {}, paired_img_url: "", paired_img_data: null, opacity: 1,
    colormap: "gray", colorbar_visible: false, cal_min: null, cal_max: null, cal_min_neg: null, cal_max_neg: null,
    frame_4d: 0, colormap_negative: "", colormap_label: null, colormap_type: 0, colormap_invert: false,
    modulation_image: null, modulate_alpha: 0, ...settings,
  });
}

export function scene(volumes, opts) {
  const others = new Map(volumes.map((one) => [one.get("id"), one]));
  return new Model({
    opts, height: 400, volumes: volumes.map((one) => `IPY_MODEL_${one.get("id")}`), meshes: [], scene: null, graph: null,
    background_masks_overlays: false, overlay_outline_width: 0, overlay_alpha_shader: 1, draw_lut: null, draw_opacity: 0.8,
    draw_fill_overwrites: true, this_model_id: "",
  }, others);
}

// While it loads, NiiVue prepares all volumes anew for each one that comes and for each of their settings: for two of
// them eleven times, each time all voxels. What it uploads and draws meanwhile is left out; once is enough.
const SKIPPED = ["drawArrays", "drawElements", "texSubImage3D"];
export function holdDrawing() {
  const all = WebGL2RenderingContext.prototype, kept = SKIPPED.map((name) => all[name]);
  for (const name of SKIPPED) all[name] = () => {};
  return () => SKIPPED.forEach((name, index) => { all[name] = kept[index]; });
}

// Whether WebGL draws on the processor, where a rendering of a large scan takes half a minute.
export function drawsOnProcessor() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const info = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = gl?.getParameter(info?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER) ?? "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}
