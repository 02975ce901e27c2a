// One session: fetch a trial, show it for the time that is set, take an answer, until the server says that it is over.
// The server decides everything that counts. An answer that does not reach it is sent again until it does.
"use strict";

const part = (id) => document.getElementById(id);
const sections = ["welcome", "session", "end", "trouble"];
const sides = ["left", "right"];
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const frame = () => new Promise((done) => requestAnimationFrame(done));
const longestWait = 5000;
let about = {};
let answerable = null;

class Refused extends Error {}

function show(name) {
  for (const each of sections) part(each).hidden = each !== name;
}

// A server that cannot be reached, or is too busy, is asked again; one that says no is not.
async function ask(path, body) {
  for (let wait = 250; ; wait = Math.min(2 * wait, longestWait)) {
    try {
      const answer = await fetch(path, { method: "POST", body: JSON.stringify(body ?? {}) });
      if (answer.ok) return await answer.json();
      if (answer.status !== 429 && answer.status < 500) {
        const held = await answer.json().catch(() => ({}));
        throw new Refused(held.reason ?? "The server did not accept this.");
      }
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    part("status").textContent = "The server does not answer; trying again. Your answers are safe.";
    await pause(wait);
  }
}

async function fetchImage(number, side) {
  for (let wait = 250; ; wait = Math.min(2 * wait, longestWait)) {
    try {
      const answer = await fetch(`/image/${number}/${side}`);
      if (answer.ok) return await answer.blob();
      if (answer.status !== 429 && answer.status < 500) throw new Refused("This trial is over.");
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    part("status").textContent = "The server does not answer; trying again.";
    await pause(wait);
  }
}

async function run(held) {
  show("session");
  for (let state = held; !state.over; state = await ask("/next")) await runTrial(state.trial);
  show("end");
  part("thanks").focus();
}

async function runTrial(trial) {
  const total = trial.practice ? about.practice : about.counted;
  const place = trial.practice ? trial.done : trial.done - about.practice;
  part("place").textContent = `${trial.practice ? "Practice" : "Trial"} ${place + 1} of ${total}`;
  part("progress").max = total;
  part("progress").value = place;
  part("status").className = "";
  part("status").textContent = "Get ready …";
  const pictures = sides.map(part);
  const urls = [];
  for (const [index, side] of sides.entries()) {
    urls.push(URL.createObjectURL(await fetchImage(trial.number, side)));
    pictures[index].src = urls[index];
  }
  await Promise.all(pictures.map((picture) => picture.decode()));
  await pause(400);
  await ask("/shown", { trial: trial.number });
  part("status").textContent = "Look …";
  await expose();
  for (const [index, picture] of pictures.entries()) {
    picture.removeAttribute("src");
    URL.revokeObjectURL(urls[index]);
  }
  part("status").textContent = "Which one was real?";
  const seen = performance.now();
  const side = await takeAnswer();
  const milliseconds = Math.min(3600000, Math.round(performance.now() - seen));
  const result = await ask("/answer", { trial: trial.number, side, milliseconds });
  if (result.correct !== undefined) await giveFeedback(result.correct);
}

// Counted from the frame in which the images appear to the one in which they are gone.
async function expose() {
  const images = part("images");
  await frame();
  images.classList.add("shown");
  const start = await frame();
  let now = start;
  while (now - start < 1000 * about.exposure) now = await frame();
  images.classList.remove("shown");
  images.dataset.exposed = Math.round(now - start);
  await frame();
}

function takeAnswer() {
  return new Promise((done) => {
    const buttons = sides.map((side) => part(`answer-${side}`));
    answerable = (side) => {
      answerable = null;
      for (const button of buttons) button.disabled = true;
      done(side);
    };
    for (const button of buttons) button.disabled = false;
  });
}

function giveFeedback(correct) {
  part("status").className = "right-answer";
  part("status").textContent = correct ? "✓ Right: that one was real." : "✗ No: the other one was real.";
  const button = part("go-on");
  button.hidden = false;
  button.focus();
  return new Promise((done) => {
    button.onclick = () => {
      button.hidden = true;
      done();
    };
  });
}

function stop(error) {
  part("reason").textContent = error instanceof Refused ? error.message : "Something went wrong on this page.";
  show("trouble");
  if (!(error instanceof Refused)) throw error;
}

function fill(name, text) {
  for (const place of document.querySelectorAll(`.${name}`)) place.textContent = text;
}

function describe(held) {
  about = { practice: held.practice, counted: held.counted, exposure: held.exposure };
}

document.addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
  if (side && answerable && !event.repeat) {
    event.preventDefault();
    answerable(side);
  }
});
for (const side of sides) part(`answer-${side}`).onclick = () => answerable?.(side);
part("reload").onclick = () => location.reload();
part("begin").onclick = () => {
  part("begin").disabled = true;
  ask("/begin").then((held) => {
    describe(held);
    return run(held);
  }).catch(stop);
};

ask("/next").then((held) => {
  describe(held);
  if (!held.new) return run(held);
  fill("exposure", held.exposure === 1 ? "one second" : `${held.exposure} seconds`);
  fill("practice", held.practice);
  fill("counted", held.counted);
  fill("minutes", Math.max(1, Math.round((held.practice + held.counted) * (held.exposure + 3) / 60)));
  show("welcome");
}).catch(stop);
