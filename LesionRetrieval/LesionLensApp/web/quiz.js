/* A quiz in a page: the steps, the log and the seals of LesionLens' Python (quiz/session.py, attempt.py, sealing.py), and what is
   shown of them. Nothing is fetched and nothing is sent: the quiz lies in the page, the answers in the browser's storage and in
   the file that the learner saves. */
"use strict";

(() => {
  const STEPS = ["look", "box", "first answer", "reveal", "second answer", "feedback"];
  const DONE = "done";
  const ANSWERING = ["first answer", "second answer"];
  const REVEALED = ["reveal", "second answer", "feedback"];
  const FEW_SLICES = 8, MAX_DIFFERENTIAL = 5, NEIGHBOURS = 9;
  const OWN_COLOR = "#59bfff", GIVEN_COLOR = "#fac833";
  const text = new TextEncoder(), told = new TextDecoder();
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const byId = (id) => document.getElementById(id);

  /* --- bytes, packed arrays and seals */

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
  const hexBytes = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));

  async function inflated(packed) {
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function unpacked(array) {
    const values = await inflated(bytesOf(array.zlib));
    const typed = array.dtype === "int16" ? new Int16Array(values.buffer) : values;
    return { data: typed, dims: [...array.shape].reverse() };
  }

  async function hmac(key, content) {
    const made = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    return new Uint8Array(await crypto.subtle.sign("HMAC", made, content));
  }

  async function pbkdf2(password, salt, iterations, length) {
    const made = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"]);
    return new Uint8Array(await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt, iterations }, made, 8 * length));
  }

  function joined(...parts) {
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  }

  async function unsealed(key, sealed, context) {
    const data = bytesOf(sealed);
    const body = data.subarray(0, -32), tag = data.subarray(-32), said = text.encode(context);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, said.length);
    const right = await hmac(await hmac(key, text.encode("tag")), joined(length, said, body));
    if (right.some((each, place) => each !== tag[place])) throw new Error("A sealed part of this page does not open: it was changed. Get the page again.");
    const cipher = body.slice(32);
    const stream = await pbkdf2(await hmac(key, text.encode("cipher")), body.slice(0, 32), 1, cipher.length);
    return cipher.map((each, place) => each ^ stream[place]);
  }

  async function openedPart(part, secret, label, context, rounds) {
    const slot = await pbkdf2(joined(secret, text.encode(label)), hexBytes(part.salt), rounds, 32);
    const key = await unsealed(slot, part.slots[label], context);
    return { key, content: JSON.parse(told.decode(await inflated(await unsealed(key, part.content, context)))) };
  }

  /* SHA-256 (FIPS 180-4) at once: the browser's own answers later, and an answer is kept before the next step begins. */
  const primes = [2];
  for (let one = 3; primes.length < 64; one += 2) if (primes.every((prime) => one % prime)) primes.push(one);
  const fraction = (root) => (root - Math.floor(root)) * 2 ** 32 | 0;
  const ROUND = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
  const START = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));

  function sha256(content) {
    const said = text.encode(content), turned = (word, by) => word >>> by | word << 32 - by;
    const blocks = new DataView(new ArrayBuffer(Math.ceil((said.length + 9) / 64) * 64));
    new Uint8Array(blocks.buffer).set(said);
    blocks.setUint8(said.length, 0x80);
    blocks.setBigUint64(blocks.byteLength - 8, BigInt(said.length) * 8n);
    const state = Int32Array.from(START), words = new Int32Array(64);
    for (let block = 0; block < blocks.byteLength; block += 64) {
      let [a, b, c, d, e, f, g, h] = state;
      for (let at = 0; at < 64; at++) {
        if (at < 16) words[at] = blocks.getInt32(block + 4 * at);
        else {
          const [early, late] = [words[at - 15], words[at - 2]];
          words[at] = words[at - 16] + words[at - 7] + (turned(early, 7) ^ turned(early, 18) ^ early >>> 3)
            + (turned(late, 17) ^ turned(late, 19) ^ late >>> 10);
        }
        const one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + (e & f ^ ~e & g) + ROUND[at] + words[at];
        const two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + (a & b ^ a & c ^ b & c);
        [h, g, f, e, d, c, b, a] = [g, f, e, d + one | 0, c, b, a, one + two | 0];
      }
      [a, b, c, d, e, f, g, h].forEach((word, at) => { state[at] += word; });
    }
    return [...state].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  /* --- the hash chain of a log, as quiz/chain.py has it: each line ends with a digest of the line before it and of itself */

  const chainOf = (line) => line.match(/,"chain":"([0-9a-f]{64})"\}$/)?.[1] ?? null;
  function chained(content, last) {
    const said = JSON.stringify(content);
    return `${said.slice(0, -1)},"chain":"${sha256(last + said)}"}\n`;
  }

  /* --- a learner's way through the quiz: events, as Slicer's log holds them */

  class Store {
    /* The browser's storage, or memory alone where there is none. */
    constructor(prefix) {
      this.prefix = prefix;
      this.memory = new Map();
      this.isKept = true;
      try {
        localStorage.setItem(prefix, "");
        localStorage.removeItem(prefix);
      } catch {
        this.isKept = false;
      }
    }

    get(learner) {
      return this.isKept ? localStorage.getItem(this.prefix + learner) : this.memory.get(learner) ?? null;
    }

    set(learner, lines) {
      if (!this.isKept) this.memory.set(learner, lines);
      else {
        try {
          localStorage.setItem(this.prefix + learner, lines);
        } catch {
          throw new Error("The answer cannot be kept: the browser's storage is full. Save your answers as a file, make room, and try again.");
        }
      }
    }

    learners() {
      const keys = this.isKept ? Object.keys(localStorage) : [...this.memory.keys()].map((key) => this.prefix + key);
      return keys.filter((key) => key.startsWith(this.prefix) && key !== this.prefix).map((key) => key.slice(this.prefix.length)).sort();
    }
  }

  class Session {
    static async open(quiz, settings, store, learner) {
      const ids = quiz.cases.map((one) => one.id);
      let lines = store.get(learner);
      if (!lines) {
        const digests = ids.map((id) => sha256(`${settings.seed}\0${learner}\0${id}`));
        const order = quiz.order === "fixed" ? ids : ids.map((id, place) => [digests[place], id]).sort().map((pair) => pair[1]);
        const started = new Date().toISOString().replace(/\.\d+Z$/, "+00:00");
        lines = chained({ format: "lesionlens-quiz-attempt", version: 1, quiz: quiz.quiz, learner, started, order }, "");
        store.set(learner, lines);
      }
      const session = new Session(quiz, store, learner, lines);
      session.isResumed = session.step !== DONE && (session.step !== "look" || session.position > 1);
      if (session.isResumed) session.append({ interrupted: true });
      return session;
    }

    constructor(quiz, store, learner, lines) {
      Object.assign(this, { quiz, store, learner, lines, records: [], step: "look", paused: null, began: performance.now() });
      const [header, ...events] = lines.trimEnd().split("\n").map((line) => JSON.parse(line));
      this.order = header.order;
      this._begin();
      for (const event of events) this._apply(event);
    }

    get position() { return this.records.length; }
    get record() { return this.records[this.records.length - 1]; }
    get case() { return this.quiz.cases.find((one) => one.id === this.record.id); }
    get isPaused() { return this.paused !== null; }
    get isRevealed() { return REVEALED.includes(this.step); }

    append(event) {
      if (this.store.get(this.learner) !== this.lines) {
        throw new Error("These answers were changed in another window; close one of the two and open this page again.");
      }
      const last = chainOf(this.lines.trimEnd().split("\n").pop()); // none: begun in a page of an earlier version
      const lines = this.lines + (last ? chained(event, last) : `${JSON.stringify(event)}\n`);
      this.store.set(this.learner, lines);
      this.lines = lines;
      this._apply(event);
    }

    finish(step, more = {}) {
      if (this.isPaused || this.step !== step) throw new Error("This cannot be done now.");
      const now = performance.now();
      const seconds = Math.round(Math.max(0, now - this.began)) / 1000;
      this.append({ case: this.record.id, step, seconds, ...more });
      this.began = now;
    }

    pause() { this.paused ??= performance.now(); }

    resume() {
      if (this.step !== DONE) this.append({ interrupted: true });
      this.began += performance.now() - this.paused;
      this.paused = null;
    }

    _begin() {
      if (this.records.length === this.order.length) this.step = DONE;
      else {
        this.step = "look";
        this.records.push({ id: this.order[this.records.length], box: null, answers: {}, seconds: 0 });
      }
    }

    _apply(event) {
      if (event.interrupted) return;
      const record = this.record;
      record.seconds += event.seconds;
      if (event.step === "box") record.box = event.box;
      if (event.step === "first answer") Object.assign(record, { first: event, answers: event.answers || {} });
      if (event.step === "second answer") record.second = event;
      if (event.step === "feedback") this._begin();
      else this.step = STEPS[STEPS.indexOf(event.step) + 1];
    }

    /* What the model says of a case that has its first answer; the truth of one that has both, null where it is not here. */
    async opened(record) {
      const sealed = this.quiz.cases.find((one) => one.id === record.id);
      if (record.first && !record.model) {
        const secret = text.encode(`${this.quiz.quiz} ${record.id} `);
        record.model = await openedPart(sealed.model, secret, record.first.label, `${record.id} model`, this.quiz.rounds);
      }
      if (record.second && sealed.truth && !record.truth) {
        const part = await openedPart(sealed.truth, record.model.key, record.second.label, `${record.id} truth`, this.quiz.rounds);
        record.truth = part.content;
      }
      return record;
    }
  }

  /* --- boxes */

  const product = (values) => values.reduce((all, each) => all * each, 1);

  /* Intersection over union of the learner's box, parallel to the body, and the teacher's, however it is turned. */
  function overlapOf(own, given) {
    const axes = given.axesRAS || [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    const isParallel = axes.every((row) => Math.max(...row.map(Math.abs)) > 1 - 1e-9);
    let both;
    if (isParallel) {
      both = product([0, 1, 2].map((row) => {
        const half = [0, 1, 2].reduce((sum, axis) => sum + Math.abs(axes[row][axis]) * given.sizeMm[axis] / 2, 0);
        return Math.max(0, Math.min(own.centerRAS[row] + own.sizeMm[row] / 2, given.centerRAS[row] + half)
          - Math.max(own.centerRAS[row] - own.sizeMm[row] / 2, given.centerRAS[row] - half));
      }));
    } else {
      const steps = 48;
      let inside = 0;
      for (let n = 0; n < steps ** 3; n++) {
        const part = [n % steps, Math.floor(n / steps) % steps, Math.floor(n / steps ** 2)].map((each) => (each + 0.5) / steps - 0.5);
        const away = part.map((each, row) => own.centerRAS[row] + each * own.sizeMm[row] - given.centerRAS[row]);
        inside += [0, 1, 2].every((axis) => Math.abs([0, 1, 2].reduce((sum, row) => sum + axes[row][axis] * away[row], 0)) <= given.sizeMm[axis] / 2);
      }
      both = inside / steps ** 3 * product(own.sizeMm);
    }
    return both / (product(own.sizeMm) + product(given.sizeMm) - both);
  }

  /* --- elements */

  function el(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  const percent = (share) => `${Math.round(100 * share)}%`;
  const css = (rgb) => `rgb(${rgb.map((each) => Math.round(255 * each)).join()})`;

  async function thumbnail(array, description) {
    const { data, dims: [width, height] } = await unpacked(array);
    const canvas = el("canvas", { width, height, role: "img", "aria-label": description });
    const picture = new ImageData(width, height);
    data.forEach((grey, place) => picture.data.set([grey, grey, grey, 255], 4 * place));
    canvas.getContext("2d").putImageData(picture, 0, 0);
    return canvas;
  }

  /* --- the page */

  class Page {
    constructor() {
      this.quiz = read("quiz");
      this.settings = read("settings");
      this.quiz.rounds = this.settings.rounds;
      this.store = new Store(`lesionlens-quiz ${this.quiz.quiz} `);
      this.session = null;
      this.shown = "";
      this.form = null;
    }

    async begin() {
      byId("start-form").addEventListener("submit", (event) => {
        event.preventDefault();
        this.try(() => this.start(byId("learner").value.trim()));
      });
      byId("go-on").addEventListener("click", () => this.goOn());
      byId("pause").addEventListener("click", () => this.try(() => this.togglePause()));
      byId("save").addEventListener("click", () => this.save());
      byId("leave").addEventListener("click", () => this.leave());
      document.addEventListener("keydown", (event) => this.key(event));
      this.showStart();
      if (!globalThis.crypto?.subtle) {
        this.complain("This browser opens no sealed pages from here. Open the file from your disk, or from an https address.");
        return;
      }
      this.viewer = await LesionViewer.create(byId("viewer"), { windows: this.settings.windows, label: "Slices of the case" });
      this.viewer.addEventListener("box", () => this.updateGoOn());
      document.documentElement.dataset.ready = "yes";
    }

    async try(action) {
      byId("problem").textContent = "";
      try {
        await action();
      } catch (error) {
        this.complain(error.message);
      }
    }

    complain(message) { byId("problem").textContent = message; }

    /* --- start and end */

    showStart() {
      for (const [id, shown] of [["start", true], ["work", false], ["end", false]]) byId(id).hidden = !shown;
      const known = this.store.learners();
      byId("storage").hidden = this.store.isKept;
      byId("known").replaceChildren(...known.map((learner) => el("li", {},
        el("button", { type: "button", onclick: () => this.try(() => this.start(learner)) }, `Go on as ${learner}`))));
      byId("known-part").hidden = known.length === 0;
      byId("learner").focus();
    }

    async start(learner) {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/.test(learner)) {
        throw new Error("Type your code: 1 to 32 of A-Z a-z 0-9 . _ - beginning with a letter or digit. No name.");
      }
      this.session = await Session.open(this.quiz, this.settings, this.store, learner);
      byId("start").hidden = true;
      await this.show();
      byId("welcome").textContent = this.session.isResumed ? "Welcome back: it goes on where you stopped." : "";
    }

    leave() {
      this.session = null;
      this.shown = "";
      this.viewer.clear();
      byId("learner").value = "";
      this.showStart();
    }

    save() {
      const address = URL.createObjectURL(new Blob([this.session.lines], { type: "application/jsonl" }));
      const link = el("a", { href: address, download: `attempt-${this.session.learner}.jsonl` });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    }

    async showEnd() {
      const { session } = this;
      this.viewer.clear();
      this.shown = "";
      byId("work").hidden = true;
      byId("end").hidden = false;
      const records = await Promise.all(session.records.map((record) => session.opened(record)));
      const rows = [];
      if (records.every((record) => record.truth)) {
        const right = (label, record) => label === record.truth.label;
        const count = (test) => `${records.filter(test).length} of ${records.length}`;
        const answered = records.filter((record) => record.model.content.answer.label);
        rows.push(["right before the reveal", count((r) => right(r.first.label, r))], ["right after the reveal", count((r) => right(r.second.label, r))],
          ["the model", `${answered.filter((r) => right(r.model.content.answer.label, r)).length} of ${answered.length}`],
          ["changed to right", count((r) => !right(r.first.label, r) && right(r.second.label, r))],
          ["changed to wrong", count((r) => right(r.first.label, r) && !right(r.second.label, r))]);
      } else rows.push(["score", "your teacher has the truth; send the file"]);
      const seconds = records.map((record) => record.seconds).sort((a, b) => a - b);
      rows.push(["mean confidence before", percent(records.reduce((sum, r) => sum + r.first.confidence, 0) / records.length)],
        ["time for a case (median)", `${Math.round(seconds[Math.floor(seconds.length / 2)])} s`]);
      const again = this.quiz.repeat && el("button", { type: "button", onclick: () => this.try(() => this.again()) }, "Take it once more");
      byId("end").replaceChildren(
        el("h2", { tabindex: "-1" }, `${session.learner}: all ${records.length} cases are done. Thank you.`),
        el("p", {}, "Save your answers and give the file to your teacher. Nothing was sent anywhere."),
        el("p", { class: "buttons" }, el("button", { type: "button", class: "main", id: "download", onclick: () => this.save() }, "Save my answers"),
          again || "", el("button", { type: "button", onclick: () => this.leave() }, "Next learner")),
        el("table", {}, el("tbody", {}, ...rows.map(([what, value]) => el("tr", {}, el("th", { scope: "row" }, what), el("td", {}, value))))));
      byId("end").querySelector("h2").focus();
    }

    async again() {
      const stem = this.session.learner.replace(/\.\d+$/, "").slice(0, 28);
      let number = 2;
      while (this.store.get(`${stem}.${number}`)) number += 1;
      byId("end").hidden = true;
      await this.start(`${stem}.${number}`);
    }

    /* --- a step */

    async show() {
      const { session } = this;
      if (session.step === DONE) return this.showEnd();
      const record = await session.opened(session.record);
      byId("work").hidden = false;
      byId("case-line").textContent = `Case ${session.position} of ${session.order.length}, ${session.learner}`;
      Object.assign(byId("progress"), { max: session.order.length, value: session.position - 1 });
      byId("pause").textContent = session.isPaused ? "Paused" : "Pause";
      byId("pause").setAttribute("aria-pressed", String(session.isPaused));
      byId("welcome").textContent = "";
      byId("step").textContent = this.stepText();
      this.form = null;
      byId("body").replaceChildren(...session.isPaused ? [] : await this.body(record));
      this.updateGoOn();
      await this.showSlices(record);
      byId("step").focus();
    }

    stepText() {
      const { session } = this;
      if (session.isPaused) return "Paused. The clock stands and the case is hidden.";
      return {
        look: "Look at the case in the slices.",
        box: `Place a box around the lesion.${this.quiz.boxes === "free" ? " Or be shown the teacher's." : ""}`,
        "first answer": "What is it, and how sure are you?",
        reveal: "This is what the model says. It may be wrong.",
        "second answer": "And now? The same answer, or another one.",
        feedback: session.record.truth ? "This is what it was." : "Your teacher has the truth of this case.",
      }[session.step];
    }

    async showSlices(record) {
      const { session, viewer } = this;
      if (session.isPaused) {
        viewer.clear();
        this.shown = "";
        return;
      }
      const one = session.case;
      if (this.shown !== one.id) {
        const { data, dims } = await unpacked(one.patch.hu);
        await viewer.showVolume({ data, dims, ijkToRAS: one.patch.ijkToRAS, windowHU: this.quiz.windowHU });
        this.shown = one.id;
        byId("few").hidden = Math.min(...dims) >= FEW_SLICES;
        byId("few").textContent = `This case has only ${Math.min(...dims)} slices; little of what lies around the lesion can be seen.`;
      }
      const given = one.box || record.model?.content.box;
      const boxes = [];
      if (record.box) boxes.push({ ...record.box, color: OWN_COLOR, label: "your box" });
      if (given && STEPS.indexOf(session.step) > 1 && (!record.box || session.isRevealed)) boxes.push({ ...given, color: GIVEN_COLOR, label: "the lesion" });
      if (session.step === "box") viewer.startDrawing();
      else {
        viewer.stopDrawing();
        if (session.step === "first answer" && boxes.length) viewer.goTo(boxes[0].centerRAS);
        if (session.step === "reveal" && given) viewer.goTo(given.centerRAS);
      }
      viewer.setBoxes(boxes);
      const heat = session.isRevealed && record.model.content.answer.heatMap;
      if (heat && !viewer.overlay) {
        const { data, dims } = await unpacked(heat.values);
        await viewer.showOverlay({ data, dims, ijkToRAS: heat.ijkToRAS, opacity: 0.5 });
      }
    }

    async body(record) {
      const { session } = this;
      const told = session.isRevealed ? await this.revealed(record) : [];
      switch (session.step) {
        case "look": return this.quiz.instructions ? [el("p", { class: "lines" }, this.quiz.instructions)] : [];
        case "box": return this.boxBody();
        case "reveal": return told;
        case "feedback": return [...this.feedback(record), ...told];
        default: return [...this.answerForm(), ...told];
      }
    }

    boxBody() {
      const parts = [el("p", {}, "Drag a rectangle on a slice. A second drag in another plane sets its depth, or Depth \u2212 and + below the slices; pull its handles until it fits."),
        el("p", {}, "Without a mouse: go to the lesion with the arrow keys in the slices, press b, then Alt or Shift with the arrows.")];
      const buttons = [el("button", { type: "button", onclick: () => this.viewer.placeBoxHere() }, "Box of 20 mm at the crosshair")];
      if (this.quiz.boxes === "free") buttons.push(el("button", { type: "button", id: "take-box", onclick: () => this.act(() => this.session.finish("box", { box: null })) }, "Show me the teacher's"));
      return [...parts, el("p", { class: "buttons" }, ...buttons)];
    }

    answerForm() {
      const form = { label: "", confidence: null, answers: () => ({}) };
      const radio = (name, value, label, onchange, title = "") => el("label", { title }, el("input", { type: "radio", name, value, onchange }), ` ${label}`);
      const classes = this.quiz.classes.map((one, place) => radio("class", one.name, place < 9 ? `${place + 1}  ${one.name}` : one.name,
        () => { form.label = one.name; this.updateGoOn(); }, one.description));
      const levels = this.quiz.confidence.map((level) => radio("confidence", level, `${level}%`, () => { form.confidence = level / 100; this.updateGoOn(); }));
      const parts = [
        el("fieldset", { id: "classes" }, el("legend", {}, "It is"), ...classes),
        el("fieldset", { id: "levels", class: "row" }, el("legend", {}, "How sure (keys + and \u2212)"), ...levels),
      ];
      if (this.session.step === "first answer") {
        const questions = (this.quiz.questions || []).filter((one) => !one.cases || one.cases.includes(this.session.record.id));
        const asked = questions.map((one) => this.question(one));
        form.answers = () => Object.fromEntries(asked.map(({ id, value }) => [id, value()]).filter(([, value]) => value && value.length));
        form.missing = () => asked.find(({ optional, value }) => !optional && !value()?.length);
        parts.push(...asked.map(({ element }) => element));
      }
      this.form = form;
      return parts;
    }

    question(one) {
      const id = `question-${one.id}`, changed = () => this.updateGoOn();
      const made = (element, value) => ({ id: one.id, optional: one.optional, text: one.text, element, value });
      if (one.kind === "text") {
        const area = el("textarea", { id, rows: "3", maxlength: "2000", oninput: changed });
        return made(el("div", { class: "question" }, el("label", { for: id }, one.text), area), () => area.value.trim());
      }
      if (one.kind === "differential") {
        const places = Math.min(MAX_DIFFERENTIAL, one.options.length);
        const selects = Array.from({ length: places }, (_, place) => el("select", { "aria-label": `${one.text}: number ${place + 1}`, onchange: changed },
          el("option", { value: "" }, place ? "\u2013" : "choose"), ...one.options.map((option) => el("option", { value: option }, option))));
        const value = () => [...new Set(selects.map((select) => select.value).filter(Boolean))];
        return made(el("fieldset", { class: "question" }, el("legend", {}, `${one.text} (the likeliest first)`), ...selects), value);
      }
      let chosen = "";
      const radios = one.options.map((option) => el("label", {}, el("input", { type: "radio", name: id, value: option,
        onchange: () => { chosen = option; changed(); } }), ` ${option}`));
      return made(el("fieldset", { class: one.kind === "rating" ? "question row" : "question" }, el("legend", {}, one.text), ...radios), () => chosen);
    }

    async revealed(record) {
      const { answer, similar, shown } = record.model.content;
      const colors = Object.fromEntries(this.quiz.classes.map((one) => [one.name, css(one.colorRGB)]));
      const parts = [el("h3", {}, "The model")];
      if (!answer.label) parts.push(el("p", {}, el("b", {}, "The model has no answer for this case.")));
      else {
        parts.push(el("p", {}, "The model says ", el("b", {}, answer.label), `, p = ${answer.probabilities[answer.label].toFixed(2)}`, answer.sentence ? el("br") : "", answer.sentence || ""));
        parts.push(el("table", { class: "bars" }, el("tbody", {}, ...Object.entries(answer.probabilities).map(([name, p]) => el("tr", {},
          el("th", { scope: "row" }, name), el("td", {}, p.toFixed(2)),
          el("td", { class: "bar" }, el("span", { style: `width:${(100 * p).toFixed(1)}%;background:${colors[name]}` })))))));
        if (shown.scores.length) parts.push(el("table", {}, el("tbody", {}, ...shown.scores.map((row) => el("tr", {}, ...row.map((cell) => el("td", {}, cell)))))));
      }
      const lines = [...shown.messages, ...shown.notes, ...answer.warnings.map((each) => `\u26a0 ${each}`)];
      parts.push(el("ul", { class: "messages" }, ...lines.map((line) => el("li", {}, line))));
      if (!answer.heatMap) parts.push(el("p", { class: "soft" }, answer.label ? "No heat map: nothing in the box speaks for it." : "No heat map."));
      if (similar.length) parts.push(...await this.gallery(similar.slice(0, NEIGHBOURS), colors));
      return parts;
    }

    async gallery(similar, colors) {
      const cards = await Promise.all(similar.map(async (one, place) => {
        const picture = one.pictures.axial ? await thumbnail(one.pictures.axial, `Axial picture of similar case ${place + 1}`) : el("span", { class: "none" }, "no picture");
        const about = Object.entries(one.attributes).slice(0, 3).map(([name, value]) => `${name} ${value}`).join(", ");
        return el("li", {}, picture, el("span", { class: "dot", style: `background:${colors[one.label] || "#888"}` }), el("b", {}, one.label),
          el("span", { class: "soft" }, `${one.similarity.toFixed(2)}${about ? `; ${about}` : ""}`));
      }));
      return [el("h3", {}, `The ${similar.length} most similar known cases, and what they turned out to be`), el("ul", { class: "gallery" }, ...cards)];
    }

    feedback(record) {
      const { truth } = record;
      const answered = (given) => `${given.label}, ${percent(given.confidence)} sure`;
      if (!truth) return [el("p", {}, `Your answers: first ${answered(record.first)}; then ${answered(record.second)}. They are kept for your teacher.`)];
      const verdict = (isRight) => el("b", { class: isRight ? "right" : "wrong" }, isRight ? "right" : "wrong");
      const line = (what, value, isRight) => el("li", {}, `${what}: ${value}, `, verdict(isRight));
      const said = record.model.content.answer.label;
      const parts = [
        el("p", { class: "truth" }, "It is ", el("b", {}, truth.label), ` (known by: ${truth.labelSource}).`),
        el("ul", {}, line("Your first answer", answered(record.first), record.first.label === truth.label),
          line("Your second answer", answered(record.second), record.second.label === truth.label),
          said ? line("The model", said, said === truth.label) : el("li", {}, "The model has no answer for this case."),
          ...this.questionLines(record, verdict)),
      ];
      if (record.box) {
        const share = overlapOf(record.box, this.session.case.box || record.model.content.box);
        parts.push(el("p", {}, `Your box shares ${percent(share)} with the teacher's (intersection over union).`));
      }
      if (truth.feedback) parts.push(el("p", { class: "lines taught" }, truth.feedback));
      if (truth.picture) parts.push(el("img", { class: "taught", alt: truth.picture.description, src: `data:image/${truth.picture.type};base64,${truth.picture.base64}` }));
      if (truth.link) parts.push(el("p", {}, el("a", { href: truth.link, target: "_blank", rel: "noopener noreferrer" }, "Read more"), " (opens the network)"));
      return parts;
    }

    questionLines(record, verdict) {
      const written = (value) => Array.isArray(value) ? value.join(", then ") : value;
      const asked = (this.quiz.questions || []).filter((one) => one.id in record.answers || one.id in (record.truth.answers || {}));
      return asked.map((one) => {
        const given = record.answers[one.id], right = record.truth.answers?.[one.id];
        const line = el("li", {}, `${one.text} ${given ? `You: ${written(given)}.` : "You: no answer."}`);
        if (right !== undefined) {
          line.append(` Teacher: ${written(right)}.`);
          if (given && one.kind !== "text") line.append(" ", verdict(one.kind === "differential" ? given[0] === right[0] : given === right));
        }
        return line;
      });
    }

    /* --- going on */

    disabledReason() {
      const { session } = this;
      if (session.isPaused) return "";
      if (session.step === "box") return this.viewer.drawnBox ? "" : "Draw a box first.";
      if (!ANSWERING.includes(session.step)) return "";
      if (!this.form.label) return "Choose what it is: click, or press its number.";
      if (this.form.confidence === null) return "Say how sure you are: click, or press + or \u2212.";
      const missing = this.form.missing?.();
      return missing ? `Answer: ${missing.text}` : "";
    }

    updateGoOn() {
      const { session } = this;
      if (!session || session.step === DONE) return;
      const reason = this.disabledReason();
      const last = session.position === session.order.length;
      byId("go-on").textContent = session.isPaused ? "Go on" : {
        look: "I have seen it", box: "Use this box", "first answer": "Answer", reveal: "Answer once more", "second answer": "Answer",
        feedback: last ? "Finish" : "Next case",
      }[session.step];
      byId("go-on").disabled = Boolean(reason);
      byId("reason").textContent = reason;
    }

    /* One action at a time: two quick clicks are one step. */
    async act(action) {
      if (this.busy) return;
      this.busy = true;
      await this.try(async () => {
        await action();
        await this.show();
      });
      this.busy = false;
    }

    goOn() {
      const { session } = this;
      if (!session || session.step === DONE || this.disabledReason()) return;
      this.act(() => {
        if (session.isPaused) return session.resume();
        const { step } = session;
        if (ANSWERING.includes(step)) {
          const { label, confidence } = this.form, answers = this.form.answers();
          return session.finish(step, { label, confidence, ...Object.keys(answers).length ? { answers } : {} });
        }
        if (step === "box") return session.finish(step, { box: this.viewer.drawnBox });
        session.finish(step);
        if (step === "look" && this.quiz.boxes === "given") session.finish("box", { box: null });
      });
    }

    togglePause() {
      return this.act(() => this.session.isPaused ? this.session.resume() : this.session.pause());
    }

    key(event) {
      if (!this.session || event.ctrlKey || event.altKey || event.metaKey || byId("work").hidden) return;
      const { target } = event;
      if (target.matches("textarea, select, input[type=text], input[type=range]")) return;
      if (event.key === "Enter") {
        if (target.matches("button, a")) return;
        event.preventDefault();
        this.goOn();
        return;
      }
      if (!this.form || this.session.isPaused) return;
      if (/^[1-9]$/.test(event.key)) byId("classes").querySelectorAll("input")[event.key - 1]?.click();
      else if (event.key === "+" || event.key === "-") {
        const levels = [...byId("levels").querySelectorAll("input")];
        const at = levels.findIndex((level) => level.checked), step = event.key === "+" ? 1 : -1;
        const next = at < 0 ? (step > 0 ? 0 : levels.length - 1) : Math.min(Math.max(at + step, 0), levels.length - 1);
        levels[next].click();
      } else return;
      event.preventDefault();
    }
  }

  globalThis.quizPage = new Page();
  globalThis.quizPage.try(() => globalThis.quizPage.begin());
})();
