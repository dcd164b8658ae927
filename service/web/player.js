/** The one player: opens a video at a second, marks its moments, offers what can be done with one. */

import * as api from "./api.js";
import { byId, icon, make, setImage } from "./dom.js";
import { clock, clockTenths } from "./format.js";
import { drawFull, note } from "./grains.js";

const panel = byId("player");
const screen = byId("video");
const still = byId("still");
const timeline = byId("timeline");

let shown = null; // {video_id, title, duration_s, codec, moments, grains?, kind, full}
let moment = null; // the chosen one of shown.moments
let opener = null; // where focus returns to
let wanted_s = 0;
let isSought = true; // whether the screen has come to wanted_s
let handlers = { onSimilar: () => {}, onChange: () => {} };

export function setUp(given) {
  handlers = given;
  byId("player-close").addEventListener("click", close);
  byId("player-similar").addEventListener("click", () => handlers.onSimilar(shown, moment));
  byId("player-link").addEventListener("click", copyLink);
  screen.addEventListener("loadedmetadata", () => {
    if (!shown) return;
    if (!shown.duration_s) shown.duration_s = screen.duration;
    seek();
    drawTimeline();
  });
  screen.addEventListener("canplay", () => !isSought && !screen.seeking && seek());
  screen.addEventListener("seeked", () => (isSought = true));
  screen.addEventListener("timeupdate", movePlayhead);
  screen.addEventListener("error", () => shown && screen.getAttribute("src") && cannotPlay());
}

export const isOpen = () => !panel.hidden;

/** Show `item` from at_s; `from` is the element that asked. */
export function open(item, at_s, from = null) {
  const isSame = shown?.video_id === item.video_id && !screen.error && screen.getAttribute("src");
  shown = item;
  opener = from ?? opener;
  wanted_s = at_s;
  moment = nearest(item.moments, at_s);
  byId("player-title").textContent = item.title;
  panel.setAttribute("aria-label", `Player: ${item.title} from ${clock(at_s)}`);
  panel.hidden = false;
  document.body.dataset.player = "open";
  byId("why").hidden = !item.grains;
  if (item.grains) {
    drawFull(byId("why-list"), item.grains, item.kind, item.full);
    byId("why-note").textContent = `${note(item.grains)} A measure of likeness, not a proof.`;
  }
  drawChips();
  drawTimeline();
  if (isSame) {
    seek();
    play();
  } else {
    start();
  }
  handlers.onChange(shown, at_s);
}

export function close() {
  if (!isOpen()) return;
  screen.pause();
  screen.removeAttribute("src");
  screen.load();
  panel.hidden = true;
  delete document.body.dataset.player;
  shown = null;
  if (opener?.isConnected) opener.focus({ preventScroll: true });
  opener = null;
  handlers.onChange(null, 0);
}

/** Close when it shows that video: it was removed. */
export const forget = (videoId) => shown?.video_id === videoId && close();

export const togglePlay = () => (screen.paused ? play() : screen.pause());

function seek() {
  isSought = false;
  screen.currentTime = wanted_s;
}

function start() {
  byId("player-error").hidden = true;
  still.hidden = true;
  screen.hidden = false;
  screen.poster = api.thumbnailUrl(shown.video_id, wanted_s);
  screen.src = api.streamUrl(shown.video_id);
  play();
}

function play() {
  screen.play().catch((error) => {
    // The browser wants a click first, or a newer source took over: the video stays paused at the right second.
    if (!["NotAllowedError", "AbortError", "NotSupportedError"].includes(error.name)) throw error;
  });
}

async function cannotPlay() {
  const failed = shown;
  const codec = failed.codec ?? (await api.video(failed.video_id).catch(() => null))?.codec; // without it: say less
  if (shown !== failed) return;
  screen.hidden = true;
  still.hidden = false;
  setImage(still, codec === "gif" ? api.streamUrl(shown.video_id) : api.thumbnailUrl(shown.video_id, wanted_s));
  movePlayhead();
  if (codec === "gif") return; // it plays as an image does
  const note = byId("player-error");
  const format = codec ? ` (${codec})` : "";
  const link = make("a", "", "Download the file");
  link.href = api.streamUrl(shown.video_id);
  link.download = shown.title;
  note.replaceChildren(`This browser can't play this video's format${format}. This is the picture at ${clockTenths(wanted_s)}. `, link);
  note.hidden = false;
}

const nearest = (moments, at_s) =>
  moments.reduce((best, m) => (!best || Math.abs(m.best_s - at_s) < Math.abs(best.best_s - at_s) ? m : best), null);

function drawChips() {
  byId("player-chips").replaceChildren(...momentChips(shown, (m, chip) => open(shown, m.best_s, opener ?? chip), moment));
}

function drawTimeline() {
  const duration = shown.duration_s;
  timeline.hidden = !duration || !shown.moments.length;
  timeline.replaceChildren(...(duration ? marks(shown, true) : []), make("i", "head"));
  movePlayhead();
}

function movePlayhead() {
  const head = timeline.querySelector(".head");
  const now_s = screen.hidden || !screen.readyState ? wanted_s : screen.currentTime;
  if (head && shown?.duration_s) head.style.left = `${(100 * now_s) / shown.duration_s}%`;
}

/** The moments of an item as stretches of a line; buttons in the player, plain marks on a card. */
export function marks(item, areButtons = false) {
  return item.moments.map((m) => {
    const mark = make(areButtons ? "button" : "i", "mark");
    mark.style.left = `${(100 * m.start_s) / item.duration_s}%`;
    mark.style.width = `${(100 * (m.end_s - m.start_s)) / item.duration_s}%`;
    if (areButtons) {
      mark.type = "button";
      mark.title = `${clock(m.start_s)} to ${clock(m.end_s)}`;
      mark.setAttribute("aria-label", `Moment from ${mark.title}`);
      mark.addEventListener("click", () => open(shown, m.best_s, opener));
    }
    return mark;
  });
}

/** One button per moment, best first; onPick(moment, button). */
export function momentChips(item, onPick, chosen = null) {
  return item.moments.map((m, i) => {
    const chip = make("button", "chip");
    chip.type = "button";
    chip.append(icon("play"), make("span", "", clockTenths(m.best_s)));
    chip.title = `${i ? "Moment" : "Best moment"}, ${clock(m.start_s)} to ${clock(m.end_s)}, score ${m.score.toFixed(3)}`;
    chip.setAttribute("aria-label", `Play at ${clockTenths(m.best_s)}. ${chip.title}`);
    if (m === chosen) chip.setAttribute("aria-current", "true");
    chip.addEventListener("click", () => onPick(m, chip));
    return chip;
  });
}

async function copyLink() {
  const label = byId("player-link").querySelector("span");
  try {
    await navigator.clipboard.writeText(location.href);
    label.textContent = "Copied";
  } catch {
    label.textContent = "Copy it from the address bar"; // plain http to another machine has no clipboard
  }
  setTimeout(() => (label.textContent = "Copy link"), 2000);
}
