// The annotator's desk. Text from data is only ever put into text nodes; every judgement is sent when
// it is made, and kept in this browser until the server says that it is on its disk.
"use strict";

const KINDS = { visual: "Seen", acoustic: "Heard", lexical: "Said", explanation: "Why", label: "Labels" };
const ADDS = { visual: ["v", "Add what is seen"], acoustic: ["s", "Add what is heard"],
  lexical: ["w", "Add what is said"], label: ["l", "Add labels"] };
const VERDICTS = { accept: ["a", "✓ Accept"], edit: ["e", "✎ Edit"], reject: ["r", "✗ Reject"] };
const RETRY_MS = 1500;
const DRAFT_MS = 600;

const $ = (id) => document.getElementById(id);
let round = null;
let clip = null;
let number = 0;

function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "for" || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

function fault(text) { $("fault").textContent = text; }

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// What is to be saved: the newest judgement of each item, oldest first. Kept per window, so that two
// windows do not send each other's; a window that opens sends what a closed one left.
const PREFIX = `emer:${location.pathname}:`;
const KEY = PREFIX + (sessionStorage.emerWindow ||= String(Date.now()) + Math.random());
const queue = new Map();
let sending = false;

const placeOf = (told) => JSON.stringify([told.clip_id, told.item]);

function adopt() {
  for (const key of Object.keys(localStorage).filter((key) => key.startsWith(PREFIX))) {
    for (const told of JSON.parse(localStorage.getItem(key))) queue.set(placeOf(told), told);
    localStorage.removeItem(key);
  }
  keep();
}

function keep() {
  if (queue.size) localStorage.setItem(KEY, JSON.stringify([...queue.values()]));
  else localStorage.removeItem(KEY);
  const waiting = queue.size > 0;
  $("saved").classList.toggle("waiting", waiting && $("saved").dataset.down === "yes");
  if (!waiting) $("saved").textContent = "Saved";
  else if ($("saved").dataset.down === "yes") {
    $("saved").textContent = `${queue.size} not saved yet: no server; trying again`;
  } else $("saved").textContent = "Saving…";
}

function save(told) {
  const place = placeOf(told);
  const earlier = queue.get(place);
  queue.set(place, { ...told, seen: earlier ? earlier.seen : told.seen });
  keep();
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  while (queue.size) {
    const [place, told] = queue.entries().next().value;
    let answer, said;
    try {
      answer = await fetch("api/mark", { method: "POST", keepalive: true,
        headers: { "Content-Type": "application/json" }, body: JSON.stringify(told) });
      said = answer.ok || answer.status === 409 ? await answer.json() : await answer.text();
    } catch {
      $("saved").dataset.down = "yes";
      keep();
      await new Promise((wake) => setTimeout(wake, RETRY_MS));
      continue;
    }
    $("saved").dataset.down = "no";
    const newer = queue.get(place) !== told ? queue.get(place) : null;
    if (newer && answer.ok) newer.seen = said.version;
    else queue.delete(place);
    keep();
    if (answer.ok) saved(told, said);
    else if (answer.status === 409) overtaken(told, said);
    else fault(`Not saved: ${said}`);
  }
  sending = false;
}

function saved(told, said) {
  const summary = round.clips.find((each) => each.clip_id === told.clip_id);
  if (summary) Object.assign(summary, said.progress);
  if (clip && clip.clip_id === told.clip_id) {
    const item = clip.items.find((each) => each.item === told.item);
    if (item) item.version = said.version;
  }
  showProgress();
}

function overtaken(told, said) {
  fault("This was judged in another window meanwhile. What stands there is shown now; judge again to change it.");
  if (!clip || clip.clip_id !== told.clip_id) return;
  const item = clip.items.find((each) => each.item === told.item);
  if (item) Object.assign(item, said);
  else clip.items.push({ item: told.item, kind: told.item.split(".")[0], given: null, evidence: [], ...said });
  showItems(told.item);
}

function judge(item, change) {
  fault("");
  Object.assign(item, change);
  save({ clip_id: clip.clip_id, item: item.item, verdict: item.verdict, text: item.text,
    note: item.note, flag: item.flag, seen: item.version || "" });
}

// The clip

async function open(at) {
  commit();
  if (at < 0 || at >= round.clips.length) return;
  try {
    clip = await ask(`api/clips/${at}`);
  } catch (error) {
    fault(`The clip cannot be shown, the server does not answer (${error.message}). Try again.`);
    return;
  }
  fault("");
  number = at;
  for (const told of queue.values()) {  // what the server does not know yet
    if (told.clip_id !== clip.clip_id) continue;
    let item = clip.items.find((each) => each.item === told.item);
    if (!item) clip.items.push(item = { item: told.item, kind: told.item.split(".")[0], given: null, evidence: [] });
    Object.assign(item, { verdict: told.verdict, text: told.text, note: told.note, flag: told.flag });
  }
  $("name").textContent = clip.clip_id;
  $("clips").value = String(at);
  $("previous").disabled = at === 0;
  $("next").disabled = at === round.clips.length - 1;
  const words = clip.items.find((each) => each.item === "clip");
  $("subtitle").textContent = words.given || "No words are known.";
  $("note").value = words.note || "";
  $("flag").checked = words.flag;
  showPlayer();
  showItems();
  showProgress();
  $("desk").dataset.clip = at;
  history.replaceState(null, "", `#${at + 1}`);
}

function showPlayer() {
  $("player").replaceChildren();
  const facts = [];
  const made = {};
  for (const which of ["video", "audio"]) {
    if (!clip.media[which]) continue;
    const player = el(which, { src: `media/${number}/${which}`, controls: which === "video" || !clip.media.video,
      preload: "metadata" });
    player.setAttribute("aria-label", which === "video" ? "The clip" : "The clip's sound");
    player.addEventListener("error", () => {
      player.replaceWith(el("p", { textContent: `This browser cannot play it. Open ${clip.look_at} elsewhere.` }));
    });
    windowed(player);
    made[which] = player;
    $("player").append(player);
  }
  if (made.video && made.audio) {  // the corpus keeps its sound apart
    made.audio.hidden = true;
    made.video.muted = true;
    for (const event of ["play", "pause", "seeked"]) made.video.addEventListener(event, () => {
      made.audio.currentTime = made.video.currentTime;
      if (made.video.paused) made.audio.pause(); else made.audio.play();
    });
  }
  if (made.video && clip.crop) {
    const [x0, y0, x1, y1] = clip.crop.map((share) => 100 * share);
    made.video.style.clipPath = `inset(${y0}% ${100 - x1}% ${100 - y1}% ${x0}%)`;
    facts.push("Only the judged person's part of the picture is shown.");
  }
  if (clip.images) facts.push(`The clip is a folder of pictures: ${clip.look_at}`);
  else if (!made.video && !made.audio) facts.push(`No media that a page can show: ${clip.look_at || "none named"}`);
  if (clip.start_s !== null || clip.end_s !== null) {
    facts.push(`Seconds ${clip.start_s ?? 0} to ${clip.end_s ?? "the end"} of the file.`);
  }
  if (clip.composite) facts.push("Composite: picture and sound were put together for a demonstration.");
  $("facts").textContent = facts.join(" ");
}

function windowed(player) {
  const start = clip.start_s ?? 0;
  const end = clip.end_s ?? Infinity;
  player.addEventListener("loadedmetadata", () => {
    if (start) player.currentTime = start;
    player.dataset.ready = "yes";
  });
  player.addEventListener("timeupdate", () => {
    if (player.currentTime >= end && !player.paused) { player.pause(); player.currentTime = start; }
  });
}

const player = () => $("player").querySelector("video, audio");

function showItems(focused) {
  const sections = [];
  for (const [kind, title] of Object.entries(KINDS)) {
    const mine = clip.items.filter((each) => each.kind === kind && (each.given !== null || each.verdict));
    const list = el("ol", { className: kind === "label" ? "labels" : "" }, ...mine.map(card));
    if (kind === "explanation" && !mine.length) continue;
    sections.push(el("h3", { textContent: title }), list);
    if (ADDS[kind]) sections.push(adder(kind));
  }
  if (clip.items.every((each) => each.item === "clip" || each.given === null)) {
    const words = clip.items.find((each) => each.item === "clip");
    sections.unshift(el("p", {}, el("button", { id: "looked", type: "button",
      textContent: words.verdict ? "✓ Looked at; nothing was given to judge" : "Nothing is given here: I have looked at it",
      onclick: () => { judge(words, { verdict: words.verdict ? null : "accept" }); showItems(); } })));
  }
  $("items").replaceChildren(...sections);
  if (focused) focus(focused);
}

function card(item) {
  const added = item.given === null;
  const made = el("li", { className: `item ${item.verdict || ""}`, tabIndex: 0 });
  made.dataset.item = item.item;
  const text = added ? item.text : item.given;
  const shown = el("p", { className: "given", textContent: text, dir: "auto" });
  const buttons = added
    ? [el("button", { type: "button", className: "reject", textContent: "✗ Remove", onclick: () => remove(item) })]
    : Object.entries(VERDICTS).map(([verdict, [, label]]) => el("button", { type: "button", className: verdict,
      textContent: label, "aria-pressed": String(item.verdict === verdict), onclick: () => decide(item, verdict) }));
  const verdicts = el("div", { className: "verdicts", role: "group", "aria-label": `Judge: ${text}` }, ...buttons);
  made.append(shown);
  if (item.verdict === "edit") made.append(el("p", { className: "now", textContent: item.text, dir: "auto" }));
  if (added) made.append(el("p", { className: "said", textContent: "added by you" }));
  if (item.evidence.length) made.append(el("p", { className: "evidence", textContent: evidence(item.evidence) }));
  made.append(verdicts);
  return made;
}

function evidence(measures) {
  const said = measures.slice(0, 4).map((each) => {
    const value = each.value === null ? "" : ` ${Number(each.value.toPrecision(3))} ${each.unit}`;
    const times = [each.start_s, each.end_s].filter((at) => at !== null).map((at) => at.toFixed(1));
    const when = times.length ? ` at ${[...new Set(times)].join("–")} s` : "";
    return each.measure + value + when;
  });
  return said.join(" · ") + (measures.length > 4 ? ` · and ${measures.length - 4} more` : "");
}

function adder(kind) {
  const [key, label] = ADDS[kind];
  const id = `add-${kind}`;
  const input = el("input", { id, autocomplete: "off", maxLength: 4000,
    placeholder: kind === "label" ? "words; separated; by semicolons" : "" });
  if (kind === "label") input.setAttribute("list", "vocabulary");
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;  // Enter ends a Chinese word, not the clue
    if (event.key === "Enter") { event.preventDefault(); add(kind, input); }
    if (event.key === "Escape") { input.value = ""; input.blur(); }
  });
  input.addEventListener("change", () => add(kind, input));
  return el("div", { className: "adding" }, el("label", { for: id }, `${label} `, el("kbd", { textContent: key })), input);
}

function add(kind, input) {
  const texts = (kind === "label" ? input.value.split(/[;,；，、]/) : [input.value]).map((text) => text.trim()).filter(Boolean);
  input.value = "";
  if (!texts.length) return;
  for (const text of texts) {
    const taken = clip.items.filter((each) => each.item.startsWith(`${kind}.+`)).map((each) => Number(each.item.split("+")[1]));
    const item = { item: `${kind}.+${Math.max(0, ...taken) + 1}`, kind, given: null, evidence: [], version: "",
      note: null, flag: false };
    clip.items.push(item);
    judge(item, { verdict: "add", text: kind === "label" ? text.toLowerCase() : text });
  }
  showItems();
  $(`add-${kind}`).focus();
}

function remove(item) {
  judge(item, { verdict: null, text: null });
  showItems();
}

function decide(item, verdict) {
  if (verdict === "edit") return edit(item);
  judge(item, { verdict: item.verdict === verdict ? null : verdict, text: null });
  const open = clip.items.filter((each) => each.given !== null && each.item !== "clip");
  const after = open.slice(open.indexOf(item) + 1).find((each) => !each.verdict);
  showItems((item.verdict && after ? after : item).item);
}

// Editing: what is typed is saved while it is typed

let editing = null;

function edit(item) {
  commit();
  const made = cardOf(item.item);
  if (!made) return;
  const before = { verdict: item.verdict, text: item.text };
  const area = el("textarea", { value: item.text || item.given, rows: 3, maxLength: 4000,
    "aria-label": `The right words instead of: ${item.given}` });
  made.append(area);
  editing = { item, area, before, timer: 0 };
  area.addEventListener("input", () => {
    clearTimeout(editing.timer);
    editing.timer = setTimeout(typed, DRAFT_MS);
  });
  area.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); commit(); showItems(item.item); }
    if (event.key === "Escape") { event.preventDefault(); cancel(); showItems(item.item); }
  });
  area.addEventListener("blur", () => { if (editing && editing.area === area) { commit(); showItems(); } });
  area.focus();
  area.select();
}

function typed() {
  if (!editing) return;
  const { item, area } = editing;
  const text = area.value.trim();
  const change = !text ? editing.before
    : text === item.given ? { verdict: "accept", text: null } : { verdict: "edit", text };
  if (change.verdict !== item.verdict || change.text !== item.text) judge(item, { ...change });
}

function commit() {
  if (!editing) return;
  clearTimeout(editing.timer);
  typed();
  editing = null;
}

function cancel() {
  const { item, before, timer } = editing;
  clearTimeout(timer);
  editing = null;
  if (item.verdict !== before.verdict || item.text !== before.text) judge(item, { ...before });
}

// Keys

const cards = () => [...$("items").querySelectorAll(".item")];
const cardOf = (name) => cards().find((each) => each.dataset.item === name);

function focus(name) {
  const made = cardOf(name);
  if (made) { made.focus(); made.scrollIntoView({ block: "nearest" }); }
}

function step(by) {
  const all = cards();
  const at = all.indexOf(document.activeElement.closest(".item"));
  const to = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by));
  if (all[to]) focus(all[to].dataset.item);
}

function focusedItem() {
  const made = document.activeElement.closest(".item");
  return made && clip.items.find((each) => each.item === made.dataset.item);
}

function acceptOpen() {
  const open = clip.items.filter((each) => each.given !== null && each.item !== "clip" && !each.verdict);
  for (const item of open) judge(item, { verdict: "accept", text: null });
  if (!open.length && $("looked")) $("looked").click();
  showItems();
}

function note() {
  if (!clip) return;
  const words = clip.items.find((each) => each.item === "clip");
  const said = $("note").value.trim() || null;
  if (said !== words.note || $("flag").checked !== words.flag) {
    judge(words, { note: said, flag: $("flag").checked });
  }
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("keys").open) return;
  if (event.key === "Escape") document.activeElement.blur();
  if (event.target.matches("input:not([type=checkbox]), textarea, select")) return;
  const item = focusedItem();
  const on = player();
  const does = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    a: () => item && item.given !== null && decide(item, "accept"),
    e: () => item && item.given !== null && edit(item),
    r: () => item && (item.given === null ? remove(item) : decide(item, "reject")),
    u: () => item && (item.given === null ? remove(item) : (judge(item, { verdict: null, text: null }), showItems(item.item))),
    A: acceptOpen,
    n: () => $("note").focus(),
    f: () => { $("flag").checked = !$("flag").checked; note(); },
    " ": () => on && (on.paused ? on.play() : on.pause()),
    ",": () => on && (on.currentTime -= 0.5), ".": () => on && (on.currentTime += 0.5),
    "[": () => open(number - 1), "]": () => open(number + 1),
    "?": () => $("keys").showModal(),
  };
  for (const [kind, [key]] of Object.entries(ADDS)) does[key] = () => $(`add-${kind}`).focus();
  if (event.key === " " && event.target.matches("button, input, a, video, audio")) return;
  if (does[event.key]) { event.preventDefault(); does[event.key](); }
}

// Progress, and the lead's page

function showProgress() {
  const done = round.clips.filter((each) => each.done).length;
  $("progress").max = round.clips.length || 1;
  $("progress").value = done;
  $("done").textContent = `${done} of ${round.clips.length} clips done`;
  [...$("clips").options].forEach((option, at) => {
    const each = round.clips[at];
    const mark = each.done ? "✓ " : each.judged ? "… " : "";
    const label = `${mark}${at + 1}. ${each.clip_id}${each.flag ? " ⚑" : ""}`;
    if (option.textContent !== label) option.textContent = label;
  });
}

const percent = (value) => value === null ? "undefined" : value.toFixed(3);

function row(...cells) { return el("tr", {}, ...cells.map((text) => el("td", { textContent: String(text) }))); }

async function lead() {
  try {
    const found = await ask("api/round");
    $("people").tBodies[0].replaceChildren(...found.progress.map((each) => row(each.annotator,
      `${each.done} of ${each.clips}`, `${each.judged} of ${each.items}`, each.flagged)));
    $("saved").textContent = "";
  } catch { $("saved").textContent = "no server; trying again"; }
  setTimeout(lead, 5000);
}

async function merge() {
  $("merge").disabled = true;
  fault("");
  try {
    const found = await ask("api/merge", { method: "POST" });
    $("merged").hidden = false;
    $("outcome").textContent = `${found.reviewed} of ${found.clips} clips were judged; ${found.conflicts} conflicts, ` +
      `${found.flagged} clips flagged.`;
    $("figures").tBodies[0].replaceChildren(
      row("Labels, words (MASI)", percent(found.alpha_masi)), row("Labels, words (Jaccard)", percent(found.alpha_jaccard)),
      row("Labels, families (MASI)", percent(found.alpha_masi_families)), row("Verdicts", percent(found.alpha_verdicts)));
    $("pairs").tBodies[0].replaceChildren(...found.pairs.map((pair) => row(`${pair.a} and ${pair.b}`, pair.clips, percent(pair.jaccard))));
    $("files").textContent = `Written to ${found.folder}: merged.parquet, conflicts.csv, agreement.json, marks.parquet.`;
  } catch (error) { fault(error.message); }
  $("merge").disabled = false;
}

async function begin() {
  round = await ask("api/round");
  $("round").textContent = `round ${round.round}`;
  $("who").textContent = round.lead ? "lead" : round.who;
  document.title = `${round.who}: review round ${round.round}`;
  $("help").onclick = () => $("keys").showModal();
  $("close").onclick = () => $("keys").close();
  if (round.lead) {
    $("lead").hidden = false;
    $("help").hidden = true;
    $("merge").onclick = merge;
    return lead();
  }
  $("desk").hidden = $("bar").hidden = $("sheet").hidden = false;
  $("vocabulary").append(...round.words.map((word) => el("option", { value: word })));
  $("clips").append(...round.clips.map((_, at) => el("option", { value: String(at) })));
  $("clips").onchange = () => open(Number($("clips").value));
  $("previous").onclick = () => open(number - 1);
  $("next").onclick = () => open(number + 1);
  $("note").addEventListener("change", note);
  let timer = 0;
  $("note").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(note, DRAFT_MS); });
  $("flag").addEventListener("change", note);
  document.addEventListener("keydown", pressed);
  window.addEventListener("pagehide", () => { commit(); note(); });
  window.addEventListener("beforeunload", (event) => { commit(); note(); if (queue.size) event.preventDefault(); });
  adopt();
  send();
  const wanted = Number(location.hash.slice(1)) - 1;
  const first = round.clips.findIndex((each) => !each.done);
  await open(wanted >= 0 && wanted < round.clips.length ? wanted : Math.max(0, first));
  step(1);
}

begin().catch((error) => fault(error.message));
