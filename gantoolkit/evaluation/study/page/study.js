// One session: fetch a trial, show it for the exposure time, send the answer, and repeat until the server ends the session.
// The server holds all state. Requests are retried until they reach it.
"use strict";

const element = (id) => document.getElementById(id);
const sections = ["welcome", "session", "end", "error"];
const sides = ["left", "right"];
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));
const maxWaitMilliseconds = 5000;
let protocol = {};
let submitAnswer = null;

class RefusedError extends Error {}

function show(name) {
  for (const section of sections) element(section).hidden = section !== name;
}

// Send a request. Retry if the server is unreachable or busy, but not if it refuses.
async function post(path, body) {
  for (let wait = 250; ; wait = Math.min(2 * wait, maxWaitMilliseconds)) {
    try {
      const response = await fetch(path, { method: "POST", body: JSON.stringify(body ?? {}) });
      if (response.ok) return await response.json();
      if (response.status !== 429 && response.status < 500) {
        const refusal = await response.json().catch(() => ({}));
        throw new RefusedError(refusal.reason ?? "The server refused the request.");
      }
    } catch (error) {
      if (error instanceof RefusedError) throw error;
    }
    element("status").textContent = "The server is not responding; trying again. Your answers are saved.";
    await pause(wait);
  }
}

async function fetchImage(number, side) {
  for (let wait = 250; ; wait = Math.min(2 * wait, maxWaitMilliseconds)) {
    try {
      const response = await fetch(`/image/${number}/${side}`);
      if (response.ok) return await response.blob();
      if (response.status !== 429 && response.status < 500) throw new RefusedError("This trial is over.");
    } catch (error) {
      if (error instanceof RefusedError) throw error;
    }
    element("status").textContent = "The server is not responding; trying again.";
    await pause(wait);
  }
}

async function runSession(initialState) {
  show("session");
  for (let state = initialState; !state.over; state = await post("/next")) await runTrial(state.trial);
  show("end");
  element("thanks").focus();
}

async function runTrial(trial) {
  const total = trial.practice ? protocol.practice : protocol.counted;
  const done = trial.practice ? trial.done : trial.done - protocol.practice;
  element("position").textContent = `${trial.practice ? "Practice" : "Trial"} ${done + 1} of ${total}`;
  element("progress").max = total;
  element("progress").value = done;
  element("status").className = "";
  element("status").textContent = "Get ready …";
  const pictures = sides.map(element);
  const urls = [];
  for (const [index, side] of sides.entries()) {
    urls.push(URL.createObjectURL(await fetchImage(trial.number, side)));
    pictures[index].src = urls[index];
  }
  await Promise.all(pictures.map((picture) => picture.decode()));
  await pause(400);
  await post("/shown", { trial: trial.number });
  element("status").textContent = "Look …";
  await expose();
  for (const [index, picture] of pictures.entries()) {
    picture.removeAttribute("src");
    URL.revokeObjectURL(urls[index]);
  }
  element("status").textContent = "Which one was real?";
  const asked = performance.now();
  const side = await waitForAnswer();
  const milliseconds = Math.min(3600000, Math.round(performance.now() - asked));
  const result = await post("/answer", { trial: trial.number, side, milliseconds });
  if (result.correct !== undefined) await showFeedback(result.correct);
}

// The exposure time runs from the frame that shows the images to the frame that hides them.
async function expose() {
  const images = element("images");
  await nextFrame();
  images.classList.add("shown");
  const start = await nextFrame();
  let now = start;
  while (now - start < 1000 * protocol.exposure) now = await nextFrame();
  images.classList.remove("shown");
  images.dataset.exposed = Math.round(now - start);
  await nextFrame();
}

function waitForAnswer() {
  return new Promise((resolve) => {
    const buttons = sides.map((side) => element(`answer-${side}`));
    submitAnswer = (side) => {
      submitAnswer = null;
      for (const button of buttons) button.disabled = true;
      resolve(side);
    };
    for (const button of buttons) button.disabled = false;
  });
}

function showFeedback(correct) {
  element("status").className = "right-answer";
  element("status").textContent = correct ? "✓ Right: that one was real." : "✗ No: the other one was real.";
  const button = element("next");
  button.hidden = false;
  button.focus();
  return new Promise((resolve) => {
    button.onclick = () => {
      button.hidden = true;
      resolve();
    };
  });
}

function showError(error) {
  element("reason").textContent = error instanceof RefusedError ? error.message : "Something went wrong on this page.";
  show("error");
  if (!(error instanceof RefusedError)) throw error;
}

function fill(name, text) {
  for (const span of document.querySelectorAll(`.${name}`)) span.textContent = text;
}

function readProtocol(state) {
  protocol = { practice: state.practice, counted: state.counted, exposure: state.exposure };
}

document.addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
  if (side && submitAnswer && !event.repeat) {
    event.preventDefault();
    submitAnswer(side);
  }
});
for (const side of sides) element(`answer-${side}`).onclick = () => submitAnswer?.(side);
element("reload").onclick = () => location.reload();
element("begin").onclick = () => {
  element("begin").disabled = true;
  post("/begin").then((state) => {
    readProtocol(state);
    return runSession(state);
  }).catch(showError);
};

post("/next").then((state) => {
  readProtocol(state);
  if (!state.new) return runSession(state);
  fill("exposure", state.exposure === 1 ? "one second" : `${state.exposure} seconds`);
  fill("practice", state.practice);
  fill("counted", state.counted);
  fill("minutes", Math.max(1, Math.round((state.practice + state.counted) * (state.exposure + 3) / 60)));
  show("welcome");
}).catch(showError);
