// One image, sent to every model in the direction that is chosen; what comes back is sent the other way.
// Names and sentences from the server are set as text, never as markup.
"use strict";

const part = (id) => document.getElementById(id);
const pause = (milliseconds, signal) => new Promise((done, stop) => {
  const timer = setTimeout(done, milliseconds);
  signal.addEventListener("abort", () => { clearTimeout(timer); stop(signal.reason); }, { once: true });
});
const longestWait = 60;
const rows = [];
let limits = null;
let chosen = null;

class Refused extends Error {}

// A server that is busy is asked again; one that says no is not.
async function translate(model, direction, image, signal, say) {
  const address = `/api/models/${encodeURIComponent(model)}/${direction}`;
  for (;;) {
    say("Translating …");
    let answer;
    try {
      answer = await fetch(address, { method: "POST", body: image, headers: { "Content-Type": image.type || "image/png" }, signal });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Refused("The server does not answer.");
    }
    if (answer.ok) return answer.blob();
    if (answer.status !== 429 && answer.status !== 503) throw new Refused(await reasonOf(answer));
    const seconds = Math.min(longestWait, Math.max(1, Number(answer.headers.get("Retry-After")) || 1));
    say(`Others are before you; trying again in ${seconds} s.`);
    await pause(1000 * seconds, signal);
  }
}

async function reasonOf(answer) {
  const held = await answer.json().catch(() => ({}));
  const said = held.error ?? `the server answered ${answer.status}`;
  return `${said[0].toUpperCase()}${said.slice(1)}.`;
}

// The part of a page that is one model's: its directions, three images, and what is being done.
class Row {
  constructor(model) {
    this.name = model.name;
    this.directions = model.directions.map((each) => each.direction);
    this.direction = this.directions[0];
    this.element = part("model").content.cloneNode(true).firstElementChild;
    const heading = this.element.querySelector("h2");
    heading.textContent = model.name;
    heading.id = `model-${rows.length}`;
    this.element.setAttribute("aria-labelledby", heading.id);
    for (const direction of this.directions) this.offer(direction);
    this.urls = [];
    this.clear();
  }

  offer(direction) {
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

  find(kind) {
    return this.element.querySelector(kind);
  }

  say(text, isTrouble = false) {
    const status = this.find(".status");
    status.textContent = text;
    status.classList.toggle("trouble", isTrouble);
  }

  clear() {
    for (const url of this.urls.splice(0)) URL.revokeObjectURL(url);
    const [from, to] = this.direction.split("2");
    const captions = { original: `Original, ${from}`, translation: `Translation, ${to}`, back: `Way back, ${from}` };
    for (const [kind, caption] of Object.entries(captions)) {
      this.find(`.${kind} .caption`).textContent = caption;
      this.find(`.${kind} .frame`).replaceChildren();
      this.find(`.${kind} a`)?.setAttribute("hidden", "");
    }
    this.rest();
    if (!this.wayBack) this.write("back", "This model knows no way back.");
  }

  rest() {
    for (const figure of this.element.querySelectorAll("figure")) figure.classList.remove("busy");
    this.element.setAttribute("aria-busy", "false");
  }

  get wayBack() {
    return this.directions.find((each) => each === [...this.direction].reverse().join(""));
  }

  write(kind, text) {
    const said = document.createElement("span");
    said.textContent = text;
    this.find(`.${kind} .frame`).replaceChildren(said);
  }

  show(kind, image, alternative, file) {
    const url = URL.createObjectURL(image);
    this.urls.push(url);
    const picture = document.createElement("img");
    picture.alt = alternative;
    picture.addEventListener("error", () => this.write(kind, "This browser cannot show such a file."), { once: true });
    picture.src = url;
    this.find(`.${kind} .frame`).replaceChildren(picture);
    const link = file && this.find(`.${kind} a`);
    if (!link) return;
    Object.assign(link, { href: url, download: file });
    link.setAttribute("aria-label", `Download ${alternative}`);
    link.hidden = false;
  }

  async run() {
    this.stop?.abort();
    this.clear();
    this.say("");
    if (!chosen) return;
    const stop = new AbortController();
    this.stop = stop;
    const direction = this.direction;
    const stem = chosen.name ? chosen.name.replace(/\.[^.]*$/, "") : "image";
    const began = performance.now();
    const say = (text) => stop.signal.aborted || this.say(text);
    this.show("original", chosen, "the original");
    try {
      const made = await this.fill("translation", direction, chosen, stop.signal, say, `${stem}-${this.name}-${direction}.png`);
      const back = this.wayBack;
      if (back) await this.fill("back", back, made, stop.signal, say, `${stem}-${this.name}-${direction}-${back}.png`);
      this.say(`Done in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
    } catch (error) {
      if (stop.signal.aborted) return;
      this.say(error instanceof Refused ? error.message : "Something went wrong on this page.", true);
      if (!(error instanceof Refused)) throw error;
    }
  }

  async fill(kind, direction, image, signal, say, file) {
    this.find(`.${kind}`).classList.add("busy");
    this.element.setAttribute("aria-busy", "true");
    try {
      const made = await translate(this.name, direction, image, signal, say);
      signal.throwIfAborted();
      const words = kind === "back" ? "the way back" : "the translation";
      this.show(kind, made, `${words} by ${this.name}, ${direction.replace("2", " to ")}`, file);
      return made;
    } finally {
      if (!signal.aborted) this.rest();
    }
  }
}

function complain(text) {
  part("trouble").textContent = text;
  part("trouble").hidden = !text;
}

function choose(file) {
  complain("");
  if (!file) return;
  if (limits && file.size > limits.bytes) {
    complain(`This file has ${(file.size / 1e6).toFixed(1)} MB; no more than ${limits.bytes / 1e6} are taken.`);
    return;
  }
  chosen = file;
  const preview = part("chosen");
  URL.revokeObjectURL(preview.src);
  preview.hidden = true;
  preview.onload = () => { preview.hidden = false; };
  preview.src = URL.createObjectURL(file);
  for (const row of rows) row.run();
}

function watchDrops() {
  let depth = 0;
  const mark = (change) => {
    depth = change === 0 ? 0 : depth + change;
    document.body.classList.toggle("over", depth > 0);
  };
  addEventListener("dragenter", () => mark(1));
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(0);
    if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
    else complain("That was no file; drop an image from your computer.");
  });
  addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
}

part("file").addEventListener("change", (event) => {
  choose(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
watchDrops();

fetch("/api/models").then(async (answer) => {
  if (!answer.ok) throw new Refused(await reasonOf(answer));
  const held = await answer.json();
  limits = held.limits;
  for (const model of held.models) {
    const row = new Row(model);
    rows.push(row);
    part("models").append(row.element);
    row.run();
  }
}).catch((error) => complain(error instanceof Refused ? error.message : "The server does not answer; load this page again."));
