"use strict";
// Filters, keys and the time cursor of the clip cards. The page reads whole without it.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

const cards = all(".card");
const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
const search = one("#search");
const form = one(".filters");
const chips = all(".chip");
const selects = all("select", form);

// -- filters

function wanted(card) {
  const pressed = chips.filter((chip) => chip.getAttribute("aria-pressed") === "true");
  if (pressed.length && !pressed.some((chip) => chip.dataset.stratum === card.dataset.stratum)) {
    return false;
  }
  for (const select of selects) {
    const has = (card.dataset[select.dataset.by] || "").split("|");
    if (select.value && !has.includes(select.value)) return false;
  }
  const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  return asked.every((word) => words.get(card).includes(word));
}

function filter() {
  let n = 0;
  for (const card of cards) {
    card.hidden = !wanted(card);
    n += !card.hidden;
  }
  const whole = n === cards.length ? "" : ` of ${cards.length}`;
  one("#count").textContent = `${n}${whole} clip${cards.length === 1 ? "" : "s"}`;
  one("#none").hidden = n > 0;
}

function press(chip) {
  const on = chip.getAttribute("aria-pressed") === "true";
  chip.setAttribute("aria-pressed", String(!on));
  filter();
}

function reset() {
  form.reset();
  chips.forEach((chip) => chip.setAttribute("aria-pressed", "false"));
  filter();
}

form.addEventListener("submit", (event) => event.preventDefault());
one("#all").addEventListener("click", reset);
search.addEventListener("input", filter);
selects.forEach((select) => select.addEventListener("change", filter));
chips.forEach((chip) => chip.addEventListener("click", () => press(chip)));
one("#again").addEventListener("click", reset);

// a link to a clip that is filtered out shows it
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const card = target && target.closest(".card");
  if (card && card.hidden) reset();
  if (card) {
    here = card;
    target.scrollIntoView({ block: "nearest" });
  }
}
window.addEventListener("hashchange", reveal);

// -- one clip: time, sound, clues

let here = null; // the clip that keys act on

function goto(card, seconds) {
  const axis = one(".timeline", card);
  if (!axis) return;
  const share = Math.min(100, (100 * seconds) / Number(axis.dataset.seconds));
  const cursor = one(".cursor", axis);
  cursor.setAttribute("x1", `${share}%`);
  cursor.setAttribute("x2", `${share}%`);
  cursor.setAttribute("visibility", "visible");
  let nearest = null;
  for (const picture of all(".pictures button", card)) {
    picture.classList.remove("now");
    const apart = Math.abs(Number(picture.dataset.at) - seconds);
    if (!nearest || apart < nearest.apart) nearest = { picture, apart };
  }
  if (nearest) nearest.picture.classList.add("now");
}

function play(card) {
  const audio = one("audio", card);
  if (!audio) return;
  if (audio.paused) {
    all("audio").forEach((other) => other.pause());
    audio.play().catch(() => {
      one(".player small", card).textContent = "this browser cannot play the sound";
    });
  } else {
    audio.pause();
  }
}

for (const card of cards) {
  card.addEventListener("focusin", () => (here = card));
  card.addEventListener("click", (event) => {
    here = card;
    const time = event.target.closest(".time");
    if (time) {
      const audio = one("audio", card);
      if (audio) audio.currentTime = Number(time.dataset.at);
      goto(card, Number(time.dataset.at));
    }
    if (event.target.closest(".play")) play(card);
  });
  const light = (event, on) => {
    const clue = event.target.closest("[data-clue]");
    if (!clue) return;
    const name = clue.dataset.clue;
    all("[data-clue]", card).forEach((el) => {
      if (el.dataset.clue === name) el.classList.toggle("lit", on);
    });
    all("[data-cited]", card).forEach((el) => {
      if (el.dataset.cited.split(" ").includes(name)) el.classList.toggle("lit", on);
    });
  };
  card.addEventListener("mouseover", (event) => light(event, true));
  card.addEventListener("mouseout", (event) => light(event, false));
  card.addEventListener("focusin", (event) => light(event, true));
  card.addEventListener("focusout", (event) => light(event, false));
  const audio = one("audio", card);
  if (audio) {
    const button = one(".play", card);
    const follow = () => {
      goto(card, audio.currentTime);
      if (!audio.paused) requestAnimationFrame(follow);
    };
    const said = (text, on) => {
      button.lastChild.textContent = text;
      one("span", button).textContent = on ? "❚❚" : "▶";
      button.setAttribute("aria-pressed", String(on));
    };
    audio.addEventListener("play", () => (said(" Stop", true), follow()));
    audio.addEventListener("pause", () => said(" Play", false));
  }
}

// -- keys and theme

function step(by) {
  const shown = cards.filter((card) => !card.hidden);
  if (!shown.length) return;
  const at = shown.indexOf(here);
  here = shown[Math.max(0, Math.min(shown.length - 1, at < 0 ? 0 : at + by))];
  here.focus({ preventScroll: true });
  here.scrollIntoView({ block: "start" });
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

const keys = one("#keys");
one("#theme").addEventListener("click", theme);
one("#help").addEventListener("click", () => keys.showModal());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    reset();
    return;
  }
  if (typing) return;
  const card = here || cards.find((each) => !each.hidden);
  switch (event.key) {
    case "/":
      search.focus();
      search.select();
      break;
    case "j":
      step(1);
      break;
    case "k":
      step(-1);
      break;
    case "p":
      if (card) play(card);
      break;
    case "o":
      if (card) {
        const folded = all("details", card);
        const open = folded.some((each) => !each.open);
        folded.forEach((each) => (each.open = open));
      }
      break;
    case "t":
      theme();
      break;
    case "?":
      keys.showModal();
      break;
    default: {
      const chip = /^[1-9]$/.test(event.key) && chips[Number(event.key) - 1];
      if (!chip) return;
      press(chip);
    }
  }
  event.preventDefault();
});

reveal();
