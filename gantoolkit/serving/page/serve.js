// Sends one image to every model in the chosen direction, and each translation back in the other direction.
// Names and messages from the server are inserted as text, never as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const sleep = (milliseconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, milliseconds);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});
const longestWait = 60;
const rows = [];
let limits = null;
let chosenFile = null;

class ServerError extends Error {}

// The translation and what the server notes about the image. Retries while the server is busy, but not after other errors.
async function translate(model, direction, image, signal, report) {
  const address = `/api/models/${encodeURIComponent(model)}/${direction}`;
  for (;;) {
    report("Translating …");
    let response;
    try {
      response = await fetch(address, { method: "POST", body: image, headers: { "Content-Type": image.type || "image/png" }, signal });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new ServerError("The server does not respond.");
    }
    if (response.ok) return { image: await response.blob(), notes: response.headers.get("X-Notes") };
    if (response.status !== 429 && response.status !== 503) throw new ServerError(await messageOf(response));
    const seconds = Math.min(longestWait, Math.max(1, Number(response.headers.get("Retry-After")) || 1));
    report(`The server is busy; retrying in ${seconds} s.`);
    await sleep(1000 * seconds, signal);
  }
}

async function messageOf(response) {
  const content = await response.json().catch(() => ({}));
  const message = content.error ?? `the server responded with status ${response.status}`;
  return `${message[0].toUpperCase()}${message.slice(1)}.`;
}

// The section of one model: its directions, three images, and a status line.
class Row {
  constructor(model) {
    this.name = model.name;
    this.directions = model.directions.map(({ direction }) => direction);
    this.direction = this.directions[0];
    this.element = byId("model").content.cloneNode(true).firstElementChild;
    const heading = this.element.querySelector("h2");
    heading.textContent = model.name;
    heading.id = `model-${rows.length}`;
    this.element.setAttribute("aria-labelledby", heading.id);
    for (const direction of this.directions) this.addDirection(direction);
    this.urls = [];
    this.clear();
  }

  addDirection(direction) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: `direction-${rows.length}`, value: direction, checked: direction === this.direction });
    input.addEventListener("change", () => {
      this.direction = direction;
      this.run();
    });
    label.append(input, direction.replace("2", " → "));
    this.element.querySelector("fieldset").append(label);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  setStatus(text, isError = false) {
    const status = this.find(".status");
    status.textContent = text;
    status.classList.toggle("error", isError);
  }

  clear() {
    for (const url of this.urls.splice(0)) URL.revokeObjectURL(url);
    const [from, to] = this.direction.split("2");
    const captions = { original: `Original, ${from}`, translation: `Translation, ${to}`, reconstruction: `Reconstruction, ${from}` };
    for (const [kind, caption] of Object.entries(captions)) {
      this.find(`.${kind} .caption`).textContent = caption;
      this.find(`.${kind} .frame`).replaceChildren();
      this.find(`.${kind} a`)?.setAttribute("hidden", "");
    }
    this.markIdle();
    if (!this.reverse) this.showText("reconstruction", "This model translates in one direction only.");
  }

  markIdle() {
    for (const figure of this.element.querySelectorAll("figure")) figure.classList.remove("busy");
    this.element.setAttribute("aria-busy", "false");
  }

  get reverse() {
    return this.directions.find((direction) => direction === [...this.direction].reverse().join(""));
  }

  showText(kind, text) {
    const span = document.createElement("span");
    span.textContent = text;
    this.find(`.${kind} .frame`).replaceChildren(span);
  }

  showImage(kind, image, description, file) {
    const url = URL.createObjectURL(image);
    this.urls.push(url);
    const element = document.createElement("img");
    element.alt = description;
    element.addEventListener("error", () => this.showText(kind, "This browser cannot display this file."), { once: true });
    element.src = url;
    this.find(`.${kind} .frame`).replaceChildren(element);
    const link = file && this.find(`.${kind} a`);
    if (!link) return;
    Object.assign(link, { href: url, download: file });
    link.setAttribute("aria-label", `Download ${description}`);
    link.hidden = false;
  }

  async run() {
    this.controller?.abort();
    this.clear();
    this.setStatus("");
    if (!chosenFile) return;
    const controller = new AbortController();
    this.controller = controller;
    const { signal } = controller;
    const direction = this.direction;
    const stem = chosenFile.name ? chosenFile.name.replace(/\.[^.]*$/, "") : "image";
    const start = performance.now();
    const report = (text) => signal.aborted || this.setStatus(text);
    this.showImage("original", chosenFile, "the original");
    try {
      const translation = await this.fill("translation", direction, chosenFile, signal, report, `${stem}-${this.name}-${direction}.png`);
      const reverse = this.reverse;
      if (reverse) await this.fill("reconstruction", reverse, translation.image, signal, report, `${stem}-${this.name}-${direction}-${reverse}.png`);
      const notes = translation.notes ? ` The image ${translation.notes}.` : "";
      this.setStatus(`Done in ${((performance.now() - start) / 1000).toFixed(1)} s.${notes}`);
    } catch (error) {
      if (signal.aborted) return;
      this.setStatus(error instanceof ServerError ? error.message : "Something went wrong on this page.", true);
      if (!(error instanceof ServerError)) throw error;
    }
  }

  async fill(kind, direction, image, signal, report, file) {
    this.find(`.${kind}`).classList.add("busy");
    this.element.setAttribute("aria-busy", "true");
    try {
      const result = await translate(this.name, direction, image, signal, report);
      signal.throwIfAborted();
      this.showImage(kind, result.image, `the ${kind} by ${this.name}, ${direction.replace("2", " to ")}`, file);
      return result;
    } finally {
      if (!signal.aborted) this.markIdle();
    }
  }
}

function showError(text) {
  byId("error").textContent = text;
  byId("error").hidden = !text;
}

function choose(file) {
  showError("");
  if (!file) return;
  if (limits && file.size > limits.bytes) {
    showError(`This file has ${(file.size / 1e6).toFixed(1)} MB; at most ${limits.bytes / 1e6} MB are accepted.`);
    return;
  }
  chosenFile = file;
  const preview = byId("preview");
  URL.revokeObjectURL(preview.src);
  preview.hidden = true;
  preview.onload = () => { preview.hidden = false; };
  preview.src = URL.createObjectURL(file);
  for (const row of rows) row.run();
}

function listenForDrops() {
  let depth = 0;
  const setDepth = (value) => {
    depth = value;
    document.body.classList.toggle("over", depth > 0);
  };
  addEventListener("dragenter", () => setDepth(depth + 1));
  addEventListener("dragleave", () => setDepth(depth - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    setDepth(0);
    if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
    else showError("This is not a file; drop an image from your computer.");
  });
  addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
}

byId("file").addEventListener("change", (event) => {
  choose(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
listenForDrops();

fetch("/api/models").then(async (response) => {
  if (!response.ok) throw new ServerError(await messageOf(response));
  const content = await response.json();
  limits = content.limits;
  for (const model of content.models) {
    const row = new Row(model);
    rows.push(row);
    byId("models").append(row.element);
    row.run();
  }
}).catch((error) => showError(error instanceof ServerError ? error.message : "The server does not respond; reload this page."));
