/* Slices of a CT in a page: one canvas that NiiVue paints, and a layer of boxes over it.

   Plain script, no build step; needs the globals `niivue` (NiiVue's UMD file) and `SlicePainter` (slices.js), and viewer.css. Knows
   nothing of what its page is for. Coordinates are RAS, mm; boxes are {centerRAS: [3], sizeMm: [3], axesRAS: 3 rows of 3 (the axes are its columns),
   as in LesionLens' JSON; matrices are four rows of four; voxels run i fastest, then j, then k.

   const viewer = await LesionViewer.create(element, {windows: {lung: [-1350, 150], ...}, measure: true});
   await viewer.showVolume({data: Int16Array, dims: [i, j, k], ijkToRAS, windowHU: [low, high]});   what was shown before goes
   viewer.clear();                                            no CT, no boxes
   viewer.showOverlay({data: Uint8Array, dims, ijkToRAS, opacity: 0.5});   a map 0 ... 255 over the CT; null takes it away
   viewer.overlay;                                            {shown, opacity}; set by viewer.setOverlay({shown, opacity})
   viewer.setWindow([low, high]); viewer.windowHU;            black and white, HU
   viewer.setBoxes([{...box, color: "#fc3", label: "the lesion"}]);        boxes to look at
   viewer.startDrawing(box or null); viewer.stopDrawing();    a box to draw, move and pull; one at a time
   viewer.drawnBox;                                           {centerRAS, sizeMm, axesRAS}, or null as long as none is drawn
   viewer.setDrawnBox(box or null); viewer.placeBoxHere();    20 mm at the crosshair
   viewer.startMeasuring(); viewer.stopMeasuring();           a line whose length is written beside it
   viewer.goTo(centerRAS); viewer.positionRAS;                where the three planes meet
   viewer.setPlanes("all" | "axial" | "coronal" | "sagittal");
   viewer.step(plane, n); viewer.setZoom(factor, centerRAS);
   viewer.pixelOf(plane, ras); viewer.rasOf(x, y);            CSS pixels of the stage, for what is laid over it
   viewer.destroy();

   Events (addEventListener): "box" (detail: the drawn box), "position" (detail: RAS), "window" (detail: HU),
   "measured" (detail: {fromRAS, toRAS, mm}), "key" (a key that the viewer has no use for).

   Mouse: drag moves the crosshair, wheel goes through the slices, Ctrl and wheel zooms, right button drag changes the window,
   middle button or Shift and drag moves the picture. Keys, while the stage has the focus: arrows up and down a slice, Page up
   and down five, left and right the next plane; z and x zoom, c centre, 0 whole, w next window, o overlay on and off; while a
   box is drawn: b a box of 20 mm at the crosshair, Alt and arrows move it, Shift and arrows size it, [ and ] its depth,
   Delete takes it away. */
"use strict";

(() => {
  const PLANES = ["axial", "coronal", "sagittal"]; // in NiiVue's order of numbers
  const DEPTH = [2, 1, 0]; // the RAS axis that a plane stands on
  const ACROSS = [[0, 1], [0, 2], [1, 2]]; // the RAS axes that run along its picture
  const ENDS = [["R", "L", "A", "P"], ["R", "L", "S", "I"], ["A", "P", "S", "I"]]; // left, right, top, bottom
  const UPRIGHT = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const DEFAULT_MM = 20, LEAST_MM = 1, GRIP_PX = 11, NARROW_PX = 560, HANDLE_PX = [2, 5];
  const DRAWN_COLOR = "#59bfff";
  const SVG = "http://www.w3.org/2000/svg";

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const plain = (box) => ({
    centerRAS: Array.from(box.centerRAS, Number),
    sizeMm: Array.from(box.sizeMm, Number),
    axesRAS: (box.axesRAS || UPRIGHT).map((row) => Array.from(row, Number)),
  });

  function element(name, attributes = {}, children = []) {
    const made = name === "svg" || attributes.xmlns ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "text") made.textContent = value;
      else if (key !== "xmlns") made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }
  const shape = (name, attributes) => element(name, { xmlns: SVG, ...attributes });

  /* The corners of the polygon in which a box is cut by the plane where axis `depth` is `at`; [] beside it. */
  function section(box, depth, at, across) {
    const axes = box.axesRAS || UPRIGHT;
    const corner = (bits) => [0, 1, 2].map((row) => box.centerRAS[row]
      + [0, 1, 2].reduce((sum, axis) => sum + axes[row][axis] * (bits >> axis & 1 ? 0.5 : -0.5) * box.sizeMm[axis], 0));
    const corners = [0, 1, 2, 3, 4, 5, 6, 7].map(corner);
    const found = [];
    for (let from = 0; from < 8; from++) {
      for (const axis of [0, 1, 2]) {
        const to = from | 1 << axis;
        if (to === from) continue;
        const [a, b] = [corners[from], corners[to]];
        const rise = b[depth] - a[depth];
        if (Math.abs(rise) < 1e-9) continue;
        const t = (at - a[depth]) / rise;
        if (t >= 0 && t <= 1) found.push(across.map((each) => a[each] + t * (b[each] - a[each])));
      }
    }
    if (found.length < 3) return [];
    const middle = [0, 1].map((each) => found.reduce((sum, point) => sum + point[each], 0) / found.length);
    const angle = (point) => Math.atan2(point[1] - middle[1], point[0] - middle[0]);
    return found.sort((a, b) => angle(a) - angle(b));
  }

  class LesionViewer extends EventTarget {
    /* See the top of the file. `windows`: name -> [low, high] HU. `measure`: whether a button for it is shown. */
    static async create(place, options = {}) {
      const viewer = new LesionViewer(place, options);
      await viewer._attach();
      return viewer;
    }

    constructor(place, { windows = {}, measure = false, label = "Slices of the CT" } = {}) {
      super();
      if (!globalThis.niivue) throw new Error("The viewer needs NiiVue, and the page does not hold it; make the page again.");
      this._windows = windows;
      this._place = place;
      this._boxes = [];
      this._overlay = null;
      this._planes = "all";
      this._plane = 0;
      this._zoom = 1;
      this._center = null;
      this._mode = "look";
      this._drawn = null;
      this._line = null;
      this.windowHU = [-160, 240];
      this.hasVolume = false;
      this._build(label, measure);
    }

    /* --- what is shown */

    async showVolume({ data, dims, ijkToRAS, windowHU }) {
      this.clear();
      if (windowHU) this.windowHU = [...windowHU];
      await this._painter.setVolume({ data, dims, ijkToRAS });
      this.hasVolume = true;
      this._plane = Math.max(PLANES.indexOf(this._planes), 0);
      this._root.classList.remove("empty");
      const [low, high] = this._extents();
      this._middle = low.map((each, axis) => (each + high[axis]) / 2);
      this._zoom = 1;
      this._center = [...this._middle];
      this._nv.scene.crosshairPos = [0.5, 0.5, 0.5];
      this._snap();
      this._showPreset();
      this.redraw();
    }

    clear() {
      this._painter.setVolume(null);
      this.hasVolume = false;
      this._overlay = null;
      this._boxes = [];
      this._drawn = this._line = null;
      this._setMode("look");
      this._root.classList.add("empty");
      this.redraw();
    }

    async showOverlay(map) {
      const isShown = Boolean(map && this.hasVolume);
      this._painter.setMap(isShown ? map : null);
      this._overlay = isShown ? { opacity: map.opacity ?? 0.5, shown: true } : null;
      this.redraw();
    }

    get overlay() {
      return this._overlay && { ...this._overlay };
    }

    setOverlay({ shown = this._overlay?.shown, opacity = this._overlay?.opacity } = {}) {
      if (!this._overlay) return;
      Object.assign(this._overlay, { shown, opacity });
      this.redraw();
    }

    setWindow([low, high]) {
      if (!(low < high)) return;
      this.windowHU = [low, high];
      this._showPreset();
      this.redraw();
      this._tell("window", [...this.windowHU]);
    }

    setBoxes(boxes) {
      this._boxes = boxes.map((box) => ({ ...plain(box), color: box.color, label: box.label }));
      this.redraw();
    }

    /* --- where it is shown */

    get positionRAS() {
      return this.hasVolume ? Array.from(this._nv.frac2mm(this._nv.scene.crosshairPos)).slice(0, 3) : null;
    }

    goTo(ras) {
      if (!this.hasVolume) return;
      this._nv.scene.crosshairPos = Array.from(this._nv.mm2frac(ras), (each) => clamp(each, 0, 1));
      this._snap();
      if (this._zoom > 1) this._keepInSight();
      this.redraw();
      this._tell("position", this.positionRAS);
    }

    setPlanes(planes) {
      this._planes = planes;
      if (planes !== "all") this._plane = PLANES.indexOf(planes);
      this.redraw();
    }

    step(plane, count) {
      if (!this.hasVolume) return;
      const axis = DEPTH[typeof plane === "string" ? PLANES.indexOf(plane) : plane];
      const slices = this._slices(axis);
      const at = [...this._nv.scene.crosshairPos];
      at[axis] = (clamp(Math.round(at[axis] * slices - 0.5) + count, 0, slices - 1) + 0.5) / slices;
      this._nv.scene.crosshairPos = at;
      this.redraw();
      this._tell("position", this.positionRAS);
    }

    setZoom(factor, centerRAS = this._center) {
      this._zoom = clamp(factor, 1, 20);
      this._center = this._zoom === 1 ? [...this._middle] : [...centerRAS];
      this.redraw();
    }

    /* --- a box of one's own */

    get drawnBox() {
      return this._drawn && plain(this._drawn);
    }

    startDrawing(box = null) {
      this._drawn = box && plain(box);
      this._setMode("draw");
      this.redraw();
    }

    stopDrawing() {
      this._drawn = null;
      this._setMode("look");
      this.redraw();
    }

    setDrawnBox(box) {
      this._drawn = box && plain(box);
      this.redraw();
      this._tell("box", this.drawnBox);
    }

    startMeasuring() {
      this._line = null;
      this._setMode("measure");
    }

    stopMeasuring() {
      this._line = null;
      this._setMode("look");
      this.redraw();
    }

    destroy() {
      this._sizes.disconnect();
      this._nv.cleanup();
      this._root.remove();
    }

    /* --- pixels and millimetres */

    /* CSS pixels of the stage -> {plane, ras}; null beside the slices. */
    rasOf(x, y) {
      const plane = this._tiles().find((tile) => x >= tile.left && x <= tile.left + tile.width
        && y >= tile.top && y <= tile.top + tile.height);
      return plane ? { plane: PLANES[plane.number], ras: this._ras(plane, x, y) } : null;
    }

    pixelOf(plane, ras) {
      const tile = this._tiles().find((each) => PLANES[each.number] === plane);
      return tile ? this._pixel(tile, ACROSS[tile.number].map((axis) => ras[axis])) : null;
    }

    _ras(tile, x, y) {
      const ras = this.positionRAS;
      const along = (x - tile.left) / tile.width;
      ras[ACROSS[tile.number][0]] = tile.start[0] + (tile.mirrored ? 1 - along : along) * tile.size[0];
      ras[ACROSS[tile.number][1]] = tile.start[1] + (1 - (y - tile.top) / tile.height) * tile.size[1];
      return ras;
    }

    _pixel(tile, point) {
      const along = (point[0] - tile.start[0]) / tile.size[0];
      const up = (point[1] - tile.start[1]) / tile.size[1];
      return [tile.left + (tile.mirrored ? 1 - along : along) * tile.width, tile.top + (1 - up) * tile.height];
    }

    _tiles() {
      if (!this.hasVolume) return [];
      const scale = this._canvas.width / (this._canvas.clientWidth || 1);
      return this._nv.screenSlices.filter((slice) => slice.axCorSag < 3).map((slice) => {
        let [left, top, width, height] = slice.leftTopWidthHeight.map((each) => each / scale);
        const mirrored = width < 0;
        if (mirrored) [left, width] = [left + width, -width];
        return { number: slice.axCorSag, left, top, width, height, mirrored, start: slice.leftTopMM, size: slice.fovMM };
      });
    }

    /* --- inside */

    async _attach() {
      const nv = this._nv = new globalThis.niivue.Niivue({
        interactive: false, dragAndDropEnabled: false, isOrientationTextVisible: false, crosshairWidth: 1,
        crosshairWidthUnit: "voxels", crosshairColor: [0.35, 0.75, 1, 0.6], backColor: [0, 0, 0, 1], isRadiologicalConvention: true,
        sagittalNoseLeft: true, isSliceMM: true, loadingText: "", logLevel: "error", show3Dcrosshair: false, isAntiAlias: false,
      });
      nv.opts.crosshairWidth = 0; // our own layer draws it, one pixel wide at every zoom
      await nv.attachToCanvas(this._canvas, false);
      this._painter = new globalThis.SlicePainter(nv);
      this._sizes = new ResizeObserver(() => this.redraw());
      this._sizes.observe(this._stage);
      this.redraw();
    }

    _extents() {
      const { extentsMin, extentsMax } = this._nv.volumeObject3D;
      return [Array.from(extentsMin).slice(0, 3), Array.from(extentsMax).slice(0, 3)];
    }

    _slices(axis) {
      return this._painter.dims[axis];
    }

    /* The crosshair in the middle of a voxel, so that what is painted is one slice and not half of two. */
    _snap() {
      this._nv.scene.crosshairPos = [...this._nv.scene.crosshairPos].map((at, axis) => {
        const slices = this._slices(axis);
        return (clamp(Math.floor(at * slices), 0, slices - 1) + 0.5) / slices;
      });
    }

    _keepInSight() {
      const [low, high] = this._extents();
      const at = this.positionRAS;
      this._center = this._center.map((center, axis) => {
        const reach = (high[axis] - low[axis]) / this._zoom / 2 * 0.8;
        return clamp(center, at[axis] - reach, at[axis] + reach);
      });
    }

    get _isNarrow() {
      return this._stage.clientWidth < NARROW_PX;
    }

    /* "all", or the one plane that fills the stage; a narrow one has room for one only. */
    _shownPlanes() {
      return this._planes === "all" && this._isNarrow ? PLANES[this._plane] : this._planes;
    }

    _layout() {
      const { clientWidth: width, clientHeight: height } = this._stage;
      const shown = this._shownPlanes();
      if (shown !== "all") return [{ sliceType: PLANES.indexOf(shown), position: [0, 0, 1, 1] }];
      if (width / height > 2) {
        return [0, 1, 2].map((plane) => ({ sliceType: plane, position: [plane / 3, 0, 1 / 3, 1] }));
      }
      return [
        { sliceType: 0, position: [0, 0, 0.62, 1] },
        { sliceType: 1, position: [0.62, 0, 0.38, 0.5] },
        { sliceType: 2, position: [0.62, 0.5, 0.38, 0.5] },
      ];
    }

    /* Paint at the next frame, however often it is asked for until then. */
    redraw() {
      if (this._waiting || !this._nv) return;
      this._waiting = requestAnimationFrame(() => {
        this._waiting = 0;
        if (this._root.isConnected) this._paint();
      });
    }

    _paint() {
      if (this.hasVolume) {
        const pan = this._middle.map((middle, axis) => middle - this._center[axis] * this._zoom);
        this._nv.scene.pan2Dxyzmm = [...pan, this._zoom];
        this._nv.customLayout = this._layout();
        this._painter.setLook({ windowHU: this.windowHU, opacity: this._overlay?.shown ? this._overlay.opacity : 0 });
      }
      this._nv.drawScene();
      this._paintLayer();
      this._showBar();
    }

    _paintLayer() {
      this._layer.replaceChildren();
      const at = this.positionRAS;
      for (const tile of this._tiles()) {
        const group = shape("svg", { x: tile.left, y: tile.top, width: tile.width, height: tile.height,
          viewBox: `${tile.left} ${tile.top} ${tile.width} ${tile.height}` });
        this._paintCross(group, tile, at);
        for (const box of this._boxes) this._paintBox(group, tile, at, box, box.color || "#fac833", box.label || "");
        if (this._drawn) {
          this._paintBox(group, tile, at, this._drawn, DRAWN_COLOR, "");
          this._paintHandles(group, tile);
        }
        this._paintLine(group, tile);
        this._paintEnds(group, tile);
        this._layer.append(group);
      }
    }

    _paintCross(group, tile, at) {
      const [x, y] = this._pixel(tile, ACROSS[tile.number].map((axis) => at[axis]));
      const ends = [[tile.left, y, x - 9, y], [x + 9, y, tile.left + tile.width, y],
        [x, tile.top, x, y - 9], [x, y + 9, x, tile.top + tile.height]];
      for (const [x1, y1, x2, y2] of ends) group.append(shape("line", { x1, y1, x2, y2, class: "cross" }));
    }

    _paintBox(group, tile, at, box, color, label) {
      const depth = DEPTH[tile.number];
      let points = section(box, depth, at[depth], ACROSS[tile.number]);
      const isBeside = points.length === 0;
      if (isBeside) points = section(box, depth, box.centerRAS[depth], ACROSS[tile.number]); // where to look for it
      const pixels = points.map((point) => this._pixel(tile, point));
      const outline = shape("polygon", { points: pixels.map((each) => each.map((v) => v.toFixed(2)).join()).join(" "),
        stroke: color, class: isBeside ? "box beside" : "box" });
      outline.append(shape("title", { text: label }));
      group.append(outline);
      if (label && !isBeside && pixels.length) {
        const left = Math.min(...pixels.map((each) => each[0])), top = Math.min(...pixels.map((each) => each[1]));
        group.append(shape("text", { x: Math.max(left, tile.left + 4), y: Math.max(top - 5, tile.top + 14), fill: color, text: label }));
      }
    }

    _paintHandles(group, tile) {
      const places = this._handles(tile).map((handle) => handle.at);
      const [first, last] = [places[0], places[places.length - 1]];
      const side = Math.min(Math.abs(last[0] - first[0]), Math.abs(last[1] - first[1]));
      const half = clamp(side / 14, ...HANDLE_PX); // what lies in a small box is seen between them
      for (const [x, y] of places) {
        group.append(shape("rect", { x: x - half, y: y - half, width: 2 * half, height: 2 * half,
          class: "handle", fill: DRAWN_COLOR }));
      }
    }

    _paintLine(group, tile) {
      if (!this._line || this._line.plane !== tile.number) return;
      const [a, b] = [this._line.from, this._line.to].map((ras) => this._pixel(tile, ACROSS[tile.number].map((axis) => ras[axis])));
      group.append(shape("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], class: "ruler" }));
      group.append(shape("text", { x: b[0] + 6, y: b[1] - 6, class: "length", text: `${this._line.mm.toFixed(1)} mm` }));
    }

    _paintEnds(group, tile) {
      const [left, right, top, bottom] = ENDS[tile.number];
      const middle = [tile.left + tile.width / 2, tile.top + tile.height / 2];
      const places = [[tile.left + 4, middle[1], left, "start"], [tile.left + tile.width - 4, middle[1], right, "end"],
        [middle[0], tile.top + 14, top, "middle"], [middle[0], tile.top + tile.height - 5, bottom, "middle"]];
      for (const [x, y, text, anchor] of places) group.append(shape("text", { x, y, text, "text-anchor": anchor, class: "end" }));
    }

    /* The eight handles of the drawn box in a plane: which side of each axis they pull (-1, 0, 1), and their pixel. */
    _handles(tile) {
      const [u, v] = ACROSS[tile.number];
      const { centerRAS, sizeMm } = this._drawn;
      const found = [];
      for (const a of [-1, 0, 1]) {
        for (const b of [-1, 0, 1]) {
          if (a || b) found.push({ sides: [a, b], at: this._pixel(tile, [centerRAS[u] + a * sizeMm[u] / 2, centerRAS[v] + b * sizeMm[v] / 2]) });
        }
      }
      return found;
    }

    _tell(name, detail) {
      this.dispatchEvent(new CustomEvent(name, { detail }));
    }

    _setMode(mode) {
      this._mode = mode;
      this._root.dataset.mode = mode;
      this._depthGroup.hidden = mode !== "draw";
      if (this._measureButton) this._measureButton.setAttribute("aria-pressed", String(mode === "measure"));
    }

    /* --- the elements */

    _build(label, measure) {
      this._canvas = element("canvas", { "aria-hidden": "true" });
      this._layer = element("svg", { "aria-hidden": "true", class: "layer" });
      this._stage = element("div", { class: "stage", tabindex: "0", role: "application", "aria-label":
        `${label}. Arrows up and down: slice; left and right: plane; z, x: zoom; w: window.` }, [this._canvas, this._layer]);
      const button = (text, title, act) => {
        const made = element("button", { type: "button", title, "aria-label": title, text });
        made.addEventListener("click", act);
        return made;
      };
      const group = (...children) => element("span", { class: "group" }, children);
      this._planeSelect = element("select", { "aria-label": "Planes" });
      for (const [value, text] of [["all", "all planes"], ...PLANES.map((plane) => [plane, plane])]) {
        this._planeSelect.append(element("option", { value, text }));
      }
      this._planeSelect.addEventListener("change", () => this.setPlanes(this._planeSelect.value));
      this._windowSelect = element("select", { "aria-label": "Window" });
      for (const [name, [low, high]] of Object.entries(this._windows)) {
        this._windowSelect.append(element("option", { value: name, text: `${name} (W ${high - low} L ${(low + high) / 2})` }));
      }
      this._windowSelect.append(element("option", { value: "", text: "own" }));
      this._windowSelect.addEventListener("change", () => {
        const chosen = this._windows[this._windowSelect.value];
        if (chosen) this.setWindow(chosen);
      });
      this._slider = element("input", { type: "range", min: "1", max: "1", "aria-label": "Slice" });
      this._slider.addEventListener("input", () => this.step(this._plane, this._slider.value - this._sliceNumber()));
      this._sliceText = element("output", { class: "slice-text" });
      this._depthGroup = group(element("span", { text: "Depth" }),
        button("\u2212", "The box less deep", () => this._deepen(-1)), button("+", "The box deeper", () => this._deepen(1)));
      this._mapBox = element("input", { type: "checkbox", checked: "" });
      this._mapBox.addEventListener("change", () => this.setOverlay({ shown: this._mapBox.checked }));
      this._mapSlider = element("input", { type: "range", min: "5", max: "100", "aria-label": "How strong the map is" });
      this._mapSlider.addEventListener("input", () => this.setOverlay({ opacity: this._mapSlider.value / 100 }));
      this._mapGroup = group(element("label", {}, [this._mapBox, " map"]), this._mapSlider);
      const tools = [
        group(this._planeSelect, this._slider, this._sliceText), group(this._windowSelect),
        group(button("\u2212", "Zoom out", () => this._zoomBy(1 / 1.4)), button("+", "Zoom in", () => this._zoomBy(1.4)),
          button("whole", "Show the whole slice", () => this.setZoom(1))),
        this._mapGroup, this._depthGroup,
      ];
      if (measure) {
        this._measureButton = button("measure", "Measure a distance", () => this._mode === "measure" ? this.stopMeasuring() : this.startMeasuring());
        tools.push(group(this._measureButton));
      }
      this._bar = element("div", { class: "viewer-bar", role: "group", "aria-label": "How the slices are shown" }, tools);
      this._root = element("div", { class: "lesion-viewer empty" }, [this._stage, this._bar]);
      this._setMode("look");
      this._place.append(this._root);
      this._connect();
    }

    _sliceNumber() {
      const axis = DEPTH[this._plane];
      return Math.round(this._nv.scene.crosshairPos[axis] * this._slices(axis) + 0.5);
    }

    _showBar() {
      this._mapGroup.hidden = !this._overlay;
      if (this._overlay) {
        this._mapBox.checked = this._overlay.shown;
        this._mapSlider.value = Math.round(this._overlay.opacity * 100);
      }
      const [all] = this._planeSelect.options;
      all.hidden = all.disabled = this._isNarrow;
      this._planeSelect.value = this._shownPlanes();
      for (const control of this._bar.querySelectorAll("button, input, select")) control.disabled = !this.hasVolume;
      if (!this.hasVolume) {
        this._sliceText.textContent = "";
        return;
      }
      this._slider.max = this._slices(DEPTH[this._plane]);
      this._slider.value = this._sliceNumber();
      this._sliceText.textContent = `${PLANES[this._plane]} ${this._sliceNumber()} of ${this._slider.max}`;
    }

    _showPreset() {
      const found = Object.entries(this._windows).find(([, [low, high]]) => low === this.windowHU[0] && high === this.windowHU[1]);
      const [low, high] = this.windowHU.map(Math.round);
      this._windowSelect.lastChild.textContent = `own (W ${high - low} L ${Math.round((low + high) / 2)})`;
      this._windowSelect.value = found ? found[0] : "";
    }

    _zoomBy(factor, centerRAS = this.positionRAS) {
      if (this.hasVolume) this.setZoom(this._zoom * factor, centerRAS);
    }

    /* --- mouse, pen and finger */

    _connect() {
      const stage = this._stage;
      stage.addEventListener("pointerdown", (event) => this._down(event));
      stage.addEventListener("pointermove", (event) => this._moved(event));
      for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => this._up());
      stage.addEventListener("contextmenu", (event) => event.preventDefault());
      stage.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
      stage.addEventListener("keydown", (event) => {
        if (this.hasVolume && this._key(event)) {
          event.preventDefault();
          event.stopPropagation();
        }
      });
    }

    _at(event) {
      const place = this._stage.getBoundingClientRect();
      return [event.clientX - place.left, event.clientY - place.top];
    }

    _tileAt(x, y) {
      return this._tiles().find((tile) => x >= tile.left && x <= tile.left + tile.width && y >= tile.top && y <= tile.top + tile.height);
    }

    _down(event) {
      const [x, y] = this._at(event);
      const tile = this._tileAt(x, y);
      if (!tile) return;
      this._plane = tile.number;
      this._stage.setPointerCapture(event.pointerId);
      const start = { tile, x, y, ras: this._ras(tile, x, y), box: this.drawnBox, windowHU: [...this.windowHU], center: [...this._center] };
      if (event.button === 2) this._drag = { ...start, act: this._dragWindow };
      else if (event.button === 1 || event.shiftKey) this._drag = { ...start, act: this._dragPicture };
      else if (this._mode === "draw") this._drag = { ...start, ...this._boxDrag(tile, x, y) };
      else if (this._mode === "measure") this._drag = { ...start, act: this._dragLine };
      else this._drag = { ...start, act: this._dragCross };
      if (this._drag.act === this._dragCross) this._drag.act.call(this, this._drag, x, y);
      this.redraw();
    }

    _moved(event) {
      const [x, y] = this._at(event);
      if (this._drag) this._drag.act.call(this, this._drag, x, y);
      else this._stage.style.cursor = this._cursor(x, y);
    }

    _up() {
      const drag = this._drag;
      this._drag = null;
      if (!drag) return;
      if (drag.changes) {
        if (drag.isNew && !drag.hasMoved) this._drawn = drag.box; // a click is no box
        this.redraw();
        this._tell("box", this.drawnBox);
      }
      if (drag.act === this._dragLine && this._line) {
        this._tell("measured", { fromRAS: this._line.from, toRAS: this._line.to, mm: this._line.mm });
      }
    }

    _cursor(x, y) {
      if (this._mode === "look") return "";
      const tile = this._tileAt(x, y);
      if (this._mode === "draw" && tile && this._drawn) return this._boxDrag(tile, x, y).cursor;
      return "crosshair";
    }

    /* What a press here begins: a handle pulls, inside it moves, beside it a new box begins or, in another plane, its depth. */
    _boxDrag(tile, x, y) {
      if (this._drawn) {
        const near = this._handles(tile).map((handle) => ({ ...handle, away: Math.hypot(handle.at[0] - x, handle.at[1] - y) }))
          .sort((a, b) => a.away - b.away)[0];
        if (near.away <= GRIP_PX) return { act: this._dragHandle, sides: near.sides, changes: true, cursor: "move" };
        const [u, v] = ACROSS[tile.number];
        const ras = this._ras(tile, x, y);
        const isInside = [u, v].every((axis) => Math.abs(ras[axis] - this._drawn.centerRAS[axis]) < this._drawn.sizeMm[axis] / 2);
        if (isInside) return { act: this._dragBox, changes: true, cursor: "grab" };
        if (tile.number !== this._drawnIn) return { act: this._dragDepth, changes: true, cursor: "crosshair" };
      }
      return { act: this._dragNew, changes: true, isNew: true, cursor: "crosshair" };
    }

    _dragNew(drag, x, y) {
      const now = this._ras(drag.tile, x, y);
      if (Math.hypot(x - drag.x, y - drag.y) < 4 && !drag.hasMoved) return;
      drag.hasMoved = true;
      this._drawnIn = drag.tile.number;
      const [u, v] = ACROSS[drag.tile.number], depth = DEPTH[drag.tile.number];
      const size = [0, 0, 0], center = this.positionRAS;
      for (const axis of [u, v]) {
        size[axis] = Math.max(Math.abs(now[axis] - drag.ras[axis]), LEAST_MM);
        center[axis] = (now[axis] + drag.ras[axis]) / 2;
      }
      size[depth] = (size[u] + size[v]) / 2; // until its depth is said: as deep as it is wide
      this._drawn = { centerRAS: center, sizeMm: size, axesRAS: UPRIGHT };
      this.redraw();
    }

    /* A second drag in another plane: where the box ends along the axis that the first picture did not show. */
    _dragDepth(drag, x, y) {
      const axis = DEPTH[this._drawnIn ?? 0];
      const now = this._ras(drag.tile, x, y);
      if (Math.abs(now[axis] - drag.ras[axis]) < LEAST_MM) return;
      this._drawn.centerRAS[axis] = (now[axis] + drag.ras[axis]) / 2;
      this._drawn.sizeMm[axis] = Math.abs(now[axis] - drag.ras[axis]);
      this.redraw();
    }

    _dragHandle(drag, x, y) {
      const now = this._ras(drag.tile, x, y);
      ACROSS[drag.tile.number].forEach((axis, place) => {
        const side = drag.sides[place];
        if (!side) return;
        const fixed = drag.box.centerRAS[axis] - side * drag.box.sizeMm[axis] / 2;
        const moving = drag.box.centerRAS[axis] + side * drag.box.sizeMm[axis] / 2 + now[axis] - drag.ras[axis];
        this._drawn.centerRAS[axis] = (fixed + moving) / 2;
        this._drawn.sizeMm[axis] = Math.max(Math.abs(moving - fixed), LEAST_MM);
      });
      this.redraw();
    }

    _dragBox(drag, x, y) {
      const now = this._ras(drag.tile, x, y);
      for (const axis of ACROSS[drag.tile.number]) this._drawn.centerRAS[axis] = drag.box.centerRAS[axis] + now[axis] - drag.ras[axis];
      this.redraw();
    }

    _dragCross(drag, x, y) {
      this.goTo(this._ras(drag.tile, clamp(x, drag.tile.left, drag.tile.left + drag.tile.width), clamp(y, drag.tile.top, drag.tile.top + drag.tile.height)));
    }

    _dragLine(drag, x, y) {
      const to = this._ras(drag.tile, x, y);
      this._line = { plane: drag.tile.number, from: drag.ras, to, mm: Math.hypot(...to.map((each, axis) => each - drag.ras[axis])) };
      this.redraw();
    }

    _dragWindow(drag, x, y) {
      const [low, high] = drag.windowHU;
      const width = Math.max(high - low + (x - drag.x) * 4, 2), level = (low + high) / 2 + (y - drag.y) * 2;
      this.setWindow([Math.round(level - width / 2), Math.round(level + width / 2)]);
    }

    _dragPicture(drag, x, y) {
      if (this._zoom === 1) return;
      const now = this._ras(drag.tile, x, y), was = this._ras(drag.tile, drag.x, drag.y);
      this.setZoom(this._zoom, drag.center.map((each, axis) => each - (now[axis] - was[axis])));
    }

    _wheel(event) {
      const [x, y] = this._at(event);
      const tile = this._tileAt(x, y);
      if (!tile || !event.deltaY) return;
      event.preventDefault();
      this._plane = tile.number;
      if (event.ctrlKey) this._zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, this._ras(tile, x, y));
      else this.step(tile.number, event.deltaY < 0 ? 1 : -1);
    }

    /* --- keys */

    _key(event) {
      if (event.ctrlKey || event.metaKey) return false;
      const moves = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
      if (event.key in moves && (event.altKey || event.shiftKey)) {
        if (this._mode !== "draw" || !this._drawn) return false;
        this._nudge(moves[event.key], event.shiftKey);
        return true;
      }
      const actions = {
        ArrowUp: () => this.step(this._plane, 1), ArrowDown: () => this.step(this._plane, -1),
        PageUp: () => this.step(this._plane, 5), PageDown: () => this.step(this._plane, -5),
        ArrowRight: () => this._nextPlane(1), ArrowLeft: () => this._nextPlane(2),
        z: () => this._zoomBy(1.4), x: () => this._zoomBy(1 / 1.4), 0: () => this.setZoom(1),
        c: () => this.setZoom(this._zoom, this.positionRAS),
        w: () => this._nextWindow(), o: () => this.setOverlay({ shown: !this._overlay?.shown }),
      };
      if (this._mode === "draw") {
        Object.assign(actions, {
          b: () => this.placeBoxHere(), "[": () => this._deepen(-1), "]": () => this._deepen(1), Delete: () => this.setDrawnBox(null),
        });
      }
      if (!(event.key in actions)) return false;
      actions[event.key]();
      return true;
    }

    _nextPlane(by) {
      this._plane = (this._plane + by) % 3;
      if (this._planes !== "all") this._planes = PLANES[this._plane];
      this.redraw();
    }

    _nextWindow() {
      const names = Object.keys(this._windows);
      if (!names.length) return;
      this.setWindow(this._windows[names[(names.indexOf(this._windowSelect.value) + 1) % names.length]]);
    }

    placeBoxHere() {
      this._drawnIn = this._plane;
      this.setDrawnBox({ centerRAS: this.positionRAS, sizeMm: [DEFAULT_MM, DEFAULT_MM, DEFAULT_MM] });
    }

    _spacing(axis) {
      const [low, high] = this._extents();
      return (high[axis] - low[axis]) / this._slices(axis);
    }

    _nudge([right, up], isSize) {
      const tile = this._tiles().find((each) => each.number === this._plane) || this._tiles()[0];
      const [u, v] = ACROSS[tile.number];
      const box = this.drawnBox;
      const steps = [[u, right * (isSize || !tile.mirrored ? 1 : -1)], [v, up]];
      for (const [axis, by] of steps) {
        if (isSize) box.sizeMm[axis] = Math.max(box.sizeMm[axis] + 2 * by * this._spacing(axis), LEAST_MM);
        else box.centerRAS[axis] += by * this._spacing(axis);
      }
      this.setDrawnBox(box);
    }

    _deepen(by) {
      if (!this._drawn) return;
      const axis = DEPTH[this._drawnIn ?? this._plane];
      const box = this.drawnBox;
      box.sizeMm[axis] = Math.max(box.sizeMm[axis] + 2 * by * this._spacing(axis), this._spacing(axis));
      this.setDrawnBox(box);
    }
  }

  globalThis.LesionViewer = LesionViewer;
})();
