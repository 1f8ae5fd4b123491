/* The lesion page: opens a CT on the server, draws boxes, asks, shows the answer. Everything that comes from a file is put in as
   text, never as markup. The token lives in the address that the server printed, then in this tab's storage only. */
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const store = globalThis.sessionStorage;
  const POLL_MS = 150, BEAT_MS = 20000, HEADER = 352;
  const state = { server: null, session: null, ct: null, boxes: [], chosen: -1, answer: null, lesion: 0, path: "", asked: "" };
  let viewer = null, saving = Promise.resolve();

  /* --- asking */

  class Refused extends Error {
    constructor(status, message) {
      super(message);
      this.status = status;
    }
  }

  async function ask(method, path, body, kind = "application/json") {
    const headers = { Authorization: `Bearer ${store.getItem("token") || ""}` };
    if (body !== undefined) headers["Content-Type"] = kind;
    const sent = body === undefined || kind !== "application/json" ? body : JSON.stringify(body);
    let response;
    try {
      response = await fetch(path, { method, headers, body: sent, cache: "no-store" });
    } catch {
      throw new Refused(0, "The server does not answer; it may have ended. Start it again and open the address that it prints.");
    }
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      const text = response.status === 401
        ? "The token is missing or wrong: open the whole address that lesionlens serve printed." : said.message;
      throw new Refused(response.status, text || `The server refused (${response.status}).`);
    }
    return response;
  }
  const json = async (...given) => (await ask(...given)).json();
  const here = (path) => `/api/sessions/${state.session}/${path}`;

  function tell(error) {
    $("problem").hidden = !error;
    $("problem").textContent = error ? error.message || String(error) : "";
    if (error) $("problem").scrollIntoView({ block: "nearest" });
  }

  /* What a control does; what goes wrong there is told above. */
  function act(work) {
    return async (event) => {
      tell(null);
      try {
        await work(event);
      } catch (error) {
        tell(error);
      }
    };
  }
  const on = (id, name, work) => $(id).addEventListener(name, act(work));

  function made(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") node.className = value;
      else if (key in node && key !== "list") node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  /* --- beginning and end */

  async function begin() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) {
      store.setItem("token", given);
      history.replaceState(null, "", location.pathname); // not in a screenshot, not in a bookmark
    }
    state.server = await json("GET", "/api/server");
    $("main").hidden = false;
    if (state.server.viewerMissing) throw new Error(state.server.viewerMissing);
    for (const name of state.server.models) $("model").append(made("option", { value: name, textContent: name }));
    $("model").value = state.server.model;
    $("shelf").hidden = !state.server.hasFolder;
    viewer = await globalThis.LesionViewer.create($("viewer"), { windows: state.server.windowsHU, measure: true });
    globalThis.lesionPage = { viewer, state };
    viewer.addEventListener("box", (event) => drawn(event.detail));
    await resume();
    if (state.server.hasFolder) await list("");
    setInterval(() => ask("GET", here("boxes")).catch(ended), BEAT_MS);
    $("end").hidden = false;
  }

  async function resume() {
    state.session = store.getItem("session");
    try {
      if (!state.session) throw new Refused(404, "");
      const { boxes } = await json("GET", here("boxes"));
      await show(await json("GET", here("ct")), boxes);
      await showAnswer().catch(() => null);
    } catch (error) {
      if (![404, 409].includes(error.status)) throw error;
      if (error.status === 404) state.session = (await json("POST", "/api/sessions")).id;
      store.setItem("session", state.session);
    }
  }

  function ended(error) {
    if (error.status === 404) tell(new Error("This session has ended and its files are deleted; load the page again."));
  }

  on("end", "click", async () => {
    await ask("DELETE", `/api/sessions/${state.session}`);
    store.removeItem("session");
    location.reload();
  });

  /* --- opening */

  async function list(path) {
    const { entries } = await json("GET", `/api/folder?path=${encodeURIComponent(path)}`);
    state.path = path;
    $("where").textContent = path || "the server's folder";
    $("up").disabled = !path;
    $("files").replaceChildren(...entries.map((entry) => {
      const button = made("button", { type: "button", textContent: entry.isFolder ? `${entry.name} /` : entry.name });
      button.addEventListener("click", act(() => (entry.isFolder ? enter(entry.path) : open({ path: entry.path }))));
      return made("li", {}, button);
    }));
    if (!entries.length) $("files").append(made("li", { textContent: "Nothing lies here." }));
  }

  /* A folder is a DICOM series, or one to look into. */
  async function enter(path) {
    await list(path);
    const files = [...$("files").querySelectorAll("button")].length;
    if (!files) return;
    const found = await json("GET", `${here("series")}?path=${encodeURIComponent(path)}`).catch(() => ({ series: [] }));
    if (found.series.length) await choose(found.series, { path });
  }

  async function choose(series, source) {
    $("series").hidden = true;
    if (series.length === 1) return open({ ...source, series: series[0].number });
    $("series-list").replaceChildren(...series.map((one) => made("option", { value: one.number, textContent: one.summary })));
    $("take-series").onclick = act(() => open({ ...source, series: $("series-list").value }));
    $("series").hidden = false;
    $("opening").textContent = `${series.length} series are there; choose one.`;
    return undefined;
  }

  on("up", "click", () => list(state.path.split("/").slice(0, -1).join("/")));

  async function take(files) {
    if (!files.length) return;
    await begun; // who is quick may choose before there is a session to send it to
    await ask("DELETE", here("files"));
    let done = 0;
    for (const file of files) {
      $("opening").textContent = `Sending file ${++done} of ${files.length} …`;
      await ask("PUT", here(`files/${encodeURIComponent(file.name || "upload")}`), file, "application/octet-stream");
    }
    if (files.length === 1) return open({});
    const found = await json("GET", here("series"));
    return choose(found.series, {});
  }

  async function open(source) {
    $("opening").textContent = "Opening …";
    try {
      const ct = await json("PUT", here("ct"), source);
      $("series").hidden = true;
      await show(ct, (await json("GET", here("boxes"))).boxes); // a scene brings its own
    } finally {
      $("opening").textContent = "";
    }
  }

  for (const id of ["pick", "pick-folder"]) {
    on(id, "change", async (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      await take(files);
    });
  }
  const drop = $("drop");
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", act(async (event) => {
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    await take(entries.length ? (await Promise.all(entries.map(inside))).flat() : [...event.dataTransfer.files]);
  }));

  async function inside(entry) {
    if (entry.isFile) return [await new Promise((found, lost) => entry.file(found, lost))];
    const reader = entry.createReader(), all = [];
    for (;;) {
      const some = await new Promise((found, lost) => reader.readEntries(found, lost));
      if (!some.length) break;
      all.push(...some);
    }
    return (await Promise.all(all.map(inside))).flat();
  }

  /* The voxels behind a NIfTI header, as the viewer takes them. */
  const TYPES = { 2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 256: Int8Array, 512: Uint16Array, 768: Uint32Array };
  function nifti(buffer) {
    const view = new DataView(buffer);
    const dims = [1, 2, 3].map((axis) => view.getInt16(40 + 2 * axis, true));
    const rows = [0, 1, 2].map((row) => [0, 1, 2, 3].map((column) => view.getFloat32(280 + 16 * row + 4 * column, true)));
    const data = new TYPES[view.getInt16(70, true)](buffer, HEADER, dims[0] * dims[1] * dims[2]);
    return { dims, data, ijkToRAS: [...rows, [0, 0, 0, 1]] };
  }

  async function show(ct, boxes) {
    const image = nifti(await (await ask("GET", here("ct/volume.nii"))).arrayBuffer());
    if (!(image.data instanceof Int16Array)) {
      image.data = Int16Array.from(image.data, (hu) => Math.max(-32768, Math.min(32767, Math.round(hu))));
    }
    await viewer.showVolume({ ...image, windowHU: state.server.windowsHU.lung });
    Object.assign(state, { ct, boxes, chosen: -1, answer: null });
    const [i, j, k] = ct.sizeIJK, [x, y, z] = ct.spacingMm.map((mm) => mm.toFixed(2));
    const facts = [`${ct.name}: ${i} × ${j} × ${k} voxels of ${x} × ${y} × ${z} mm`];
    if (ct.series) facts.push(`${ct.series.modality}, ${ct.series.images} images`);
    if (ct.details?.sliceThicknessMm) facts.push(`slices ${ct.details.sliceThicknessMm} mm thick`);
    if (ct.details?.kernel) facts.push(`kernel ${ct.details.kernel}`);
    $("ct").textContent = [...facts, ...ct.warnings].join(". ");
    $("boxes").hidden = $("ask").hidden = false;
    $("answer").hidden = true;
    $("state").textContent = "";
    showBoxes();
    if (boxes.length) select(0);
  }

  /* --- boxes */

  function showBoxes() {
    $("list").replaceChildren(...state.boxes.map((box, index) => {
      const size = box.sizeMm.map((mm) => mm.toFixed(0)).join(" × ");
      const button = made("button", { type: "button", textContent: `${box.name}: ${size} mm` });
      button.setAttribute("aria-pressed", String(index === state.chosen));
      button.addEventListener("click", act(() => select(index)));
      return made("li", {}, button);
    }));
    const box = state.boxes[state.chosen];
    $("remove").disabled = $("name").disabled = !box;
    $("name").value = box ? box.name : "";
    $("save").disabled = $("classify").disabled = !state.boxes.length;
    viewer.setBoxes(state.boxes.filter((_, index) => index !== state.chosen)
      .map((each) => ({ ...each, color: "#ffcc33", label: each.name })));
    const stale = state.answer && state.asked !== JSON.stringify(state.boxes);
    $("stale").hidden = !stale;
  }

  function select(index) {
    state.chosen = index;
    const box = state.boxes[index];
    if (box) viewer.goTo(box.centerRAS);
    viewer.startDrawing(box || null);
    showBoxes();
  }

  /* What the viewer drew: the chosen box, or, where none is chosen, a new one. */
  function drawn(box) {
    if (!box) {
      if (state.chosen >= 0) removeChosen();
      return;
    }
    if (state.chosen < 0) {
      state.boxes.push({ name: freeName() });
      state.chosen = state.boxes.length - 1;
    }
    Object.assign(state.boxes[state.chosen], box);
    showBoxes();
    keep();
  }

  function freeName() {
    const names = new Set(state.boxes.map((box) => box.name));
    let number = 1;
    while (names.has(`L${number}`)) number += 1;
    return `L${number}`;
  }

  function keep() {
    const boxes = state.boxes.map(({ name, centerRAS, sizeMm, axesRAS }) => ({ name, centerRAS, sizeMm, axesRAS }));
    const sent = saving.catch(() => null).then(() => ask("PUT", here("boxes"), { boxes }));
    saving = sent;
    sent.then(() => tell(null), tell);
    return sent;
  }

  function removeChosen() {
    state.boxes.splice(state.chosen, 1);
    state.chosen = -1;
    viewer.stopDrawing();
    showBoxes();
    keep();
  }

  on("add", "click", () => {
    state.chosen = -1;
    viewer.startDrawing(null);
    showBoxes();
    $("viewer").querySelector(".stage").focus();
  });
  on("remove", "click", removeChosen);
  on("name", "change", (event) => {
    if (!event.target.value.trim()) return showBoxes();
    state.boxes[state.chosen].name = event.target.value.trim();
    showBoxes();
    return keep();
  });
  on("save", "click", () => saving.then(() => download("boxes.mrk.json")));
  on("load", "change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    state.boxes = (await json("PUT", here("boxes.mrk.json"), await file.text(), "text/plain")).boxes;
    select(state.boxes.length ? 0 : -1);
  });

  /* --- asking the model */

  on("classify", "click", async () => {
    await saving;
    const asked = JSON.stringify(state.boxes);
    const options = { model: $("model").value, boxJitter: $("jitter").checked ? 8 : 0, answerAnyway: $("anyway").checked };
    let job = await json("POST", here("job"), options);
    working(true);
    try {
      while (job.state === "queued" || job.state === "running") {
        $("progress").max = job.total;
        $("progress").value = job.done;
        $("state").textContent = job.state === "queued" ? waiting(job.place) : `Lesion ${Math.min(job.done + 1, job.total)} of ${job.total} ${job.name}`;
        await new Promise((done) => setTimeout(done, POLL_MS));
        job = await json("GET", here("job"));
      }
    } finally {
      working(false);
    }
    $("state").textContent = job.state === "done" ? `Answered in ${job.seconds.toFixed(1)} s.` : job.state === "cancelled" ? "Cancelled." : "";
    if (job.error) throw new Error(job.error.message);
    if (job.state === "done") {
      state.asked = asked;
      await showAnswer();
    }
  });
  const waiting = (place) => (place > 1 ? `Waiting: ${place} are before you.` : place ? "Waiting: one is before you." : "Waiting …");
  on("cancel", "click", () => ask("DELETE", here("job")));

  function working(isSo) {
    $("progress").hidden = $("cancel").hidden = !isSo;
    $("classify").disabled = isSo || !state.boxes.length;
    if (isSo) $("cancel").focus();
    else if (document.activeElement === document.body || document.activeElement === $("cancel")) $("classify").focus();
  }

  /* --- the answer */

  async function showAnswer() {
    state.answer = await json("GET", here("answer"));
    const { model, device, software, lesions } = state.answer;
    if (!state.asked) state.asked = JSON.stringify(state.boxes);
    $("answer").hidden = false;
    $("who").textContent = `${model.name} ${model.version}, ${device}, ${software}. ${state.answer.note} ${state.answer.notice}`;
    $("lesions").replaceChildren(...lesions.map((lesion, index) => {
      const button = made("button", { type: "button", textContent: `${lesion.name}: ${lesion.label || "no answer"}` });
      button.addEventListener("click", act(() => showLesion(index)));
      return made("li", {}, button);
    }));
    const files = ["results.json", "results.csv"];
    if (lesions.some((lesion) => lesion.similar)) files.push("similar.csv");
    if (state.answer.isDicom) files.push("results.dcm", "lesions.seg.dcm");
    $("downloads").replaceChildren(...files.map((name) => {
      const button = made("button", { type: "button", textContent: name });
      button.addEventListener("click", act(() => download(name)));
      return button;
    }));
    showBoxes();
    await showLesion(0);
  }

  async function showLesion(index) {
    state.lesion = index;
    const lesion = state.answer.lesions[index];
    [...$("lesions").querySelectorAll("button")].forEach((button, at) => button.setAttribute("aria-pressed", String(at === index)));
    const parts = [made("h3", { textContent: `${lesion.name}: ${lesion.label || "no answer"}` })];
    if (lesion.sentence) parts.push(made("p", { textContent: lesion.sentence }));
    if (Object.keys(lesion.probabilities).length) parts.push(bars(lesion.probabilities));
    for (const row of lesion.scores) parts.push(made("p", { class: "facts", textContent: `${row.name}: ${row.text} (${row.onScale})` }));
    for (const text of lesion.messages) parts.push(made("p", { textContent: text }));
    if (lesion.warnings.length) {
      parts.push(made("ul", { class: "warnings" }, ...lesion.warnings.map((text) => made("li", { textContent: text }))));
    }
    if (lesion.hasMap) {
      const button = made("button", { type: "button", textContent: "Download the map (.nrrd)" });
      button.addEventListener("click", act(() => download(`maps/${lesion.number}/map.nrrd`, `gradcam_${lesion.number}.nrrd`)));
      parts.push(made("p", {}, button));
    }
    if (lesion.similar) parts.push(...gallery(lesion.similar));
    $("lesion").replaceChildren(...parts);
    viewer.setWindow(lesion.windowHU);
    viewer.goTo(lesion.centerRAS);
    await showMap(lesion);
  }

  async function showMap(lesion) {
    if (!lesion.hasMap) return viewer.showOverlay(null);
    const map = nifti(await (await ask("GET", here(`maps/${lesion.number}/map.nii`))).arrayBuffer());
    return viewer.showOverlay({ ...map, data: Uint8Array.from(map.data, (value) => Math.round(255 * value)), opacity: 0.5 });
  }

  function bars(probabilities) {
    const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
    return made("div", { class: "bars" }, ...rows.flatMap(([name, share]) => {
      const swatch = made("span", { class: "swatch" });
      swatch.style.background = state.answer.colors[name] || "#888";
      const meter = made("meter", { min: 0, max: 1, value: share });
      meter.setAttribute("aria-label", name);
      return [made("span", {}, swatch, name), meter, made("span", { class: "share", textContent: `${(100 * share).toFixed(1)} %` })];
    }));
  }

  function gallery(similar) {
    const cards = similar.cases.map((card) => {
      const image = card.image ? [made("img", { src: card.image, alt: "" })] : [];
      const text = [`${card.label}`, `similarity ${card.similarity.toFixed(2)}`, ...(card.mayBeTheLesion ? ["may be this lesion"] : [])];
      const button = made("button", { type: "button" }, ...image, ...text.map((line) => made("span", { textContent: line })));
      button.setAttribute("aria-label", `Case ${card.caseId}, ${text.join(", ")}: side by side`);
      button.addEventListener("click", () => beside(similar, card));
      return made("li", {}, button);
    });
    return [made("h3", { textContent: "The most similar cases" }), made("p", { textContent: similar.vote }),
      made("ul", { class: "gallery" }, ...cards)];
  }

  function beside(similar, card) {
    $("own").src = similar.lesion;
    $("other").src = card.image || "data:,";
    $("other").hidden = !card.image;
    $("other").alt = `Case ${card.caseId}, axial`;
    $("other-name").textContent = `Case ${card.caseId}: ${card.label}, similarity ${card.similarity.toFixed(2)}`;
    $("beside-scale").textContent = card.toScale ? "Both at the same scale and window." : "The scale of the case's picture is not known.";
    const pairs = [...card.attributes, ...(card.labelSource ? [["label by", card.labelSource]] : [])];
    $("attributes").replaceChildren(...pairs.flatMap(([name, value]) => [made("dt", { textContent: name }), made("dd", { textContent: value })]));
    $("beside").showModal();
  }
  $("close").addEventListener("click", () => $("beside").close());

  async function download(path, name = path) {
    const blob = await (await ask("GET", here(path))).blob();
    const link = made("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const begun = begin();
  begun.catch(tell);
})();
