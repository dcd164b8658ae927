/** The search view: ask, show the hits, say what it took. Knows no URL; app.js hands it the query to show. */

import * as api from "./api.js";
import { byId, fromTemplate, make, setImage, showNotice } from "./dom.js";
import { clock, clockTenths, many, milliseconds, score } from "./format.js";
import { drawSmall, fullLength, note } from "./grains.js";
import { marks, momentChips } from "./player.js";
import * as scorers from "./scorers.js";

const PAGE = 12;
const MOST = 96;

const list = byId("results");
const form = byId("search-form");

let running = null; // AbortController of the search in flight
let handlers = { onOpen: () => {}, onSimilar: () => {} };
let topK = PAGE;
let query = null;

export function setUp(given) {
  handlers = given;
  list.addEventListener("keydown", moveAmong);
  byId("more-results").addEventListener("click", () => {
    topK = Math.min(MOST, topK * 2);
    ask(list.children.length);
  });
}

/** query: {text} | {clip: File} | {videoId, start_s?, end_s?, title?}, each with scorer?; null for the start page. */
export function show(asked) {
  running?.abort();
  query = asked;
  topK = PAGE;
  clear();
  document.body.dataset.mode = asked ? "results" : "home";
  if (asked) ask(0);
}

function clear() {
  list.replaceChildren();
  showNotice(byId("search-error"), null);
  for (const part of ["result-head", "warnings", "nothing", "more-results"]) byId(part).hidden = true;
}

function send(signal) {
  const options = { top_k: topK, ...(query.scorer && { scorer: query.scorer }) };
  if (query.text !== undefined) return api.searchText(query.text, options, signal);
  if (query.clip) return api.searchClip(query.clip, options, signal);
  const range = { video_id: query.videoId };
  if (query.start_s !== undefined) Object.assign(range, { start_s: query.start_s, end_s: query.end_s });
  return api.searchStored(range, options, signal);
}

function heading() {
  if (query.text !== undefined) return `“${query.text}”`;
  if (query.clip) return `Like your clip ${query.clip.name}`;
  const range = query.start_s === undefined ? "" : `, ${clock(query.start_s)} to ${clock(query.end_s)}`;
  return `Like ${query.title ?? "this video"}${range}`;
}

async function ask(numShown) {
  const mine = (running = new AbortController());
  byId("result-head").hidden = false;
  byId("result-title").textContent = heading();
  byId("status").textContent = query.clip ? "Reading your clip…" : "Searching…";
  form.classList.add("busy");
  list.setAttribute("aria-busy", "true");
  try {
    const answer = await send(mine.signal);
    if (mine === running) present(answer, numShown);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof api.ApiError)) throw error;
    clear();
    showNotice(byId("search-error"), error);
  } finally {
    if (mine === running) {
      form.classList.remove("busy");
      list.removeAttribute("aria-busy");
    }
  }
}

function present(answer, numShown) {
  showNotice(byId("search-error"), null);
  const kind = query.text !== undefined ? "text" : "video";
  const full = fullLength(answer.results);
  list.replaceChildren(...answer.results.map((hit) => card(hit, kind, full)));
  byId("status").replaceChildren(...statusLine(answer));
  scorers.show(answer.effective.scorer, kind);
  const warnings = byId("warnings");
  warnings.replaceChildren(...answer.warnings.map(({ message }) => make("li", "", message)));
  warnings.hidden = !answer.warnings.length;
  byId("nothing").hidden = answer.results.length > 0;
  byId("nothing-text").textContent = answer.total_indexed
    ? "Try other words, or a longer description."
    : "The library is empty. Add videos first, then search.";
  byId("more-results").hidden = answer.results.length < topK || topK >= MOST;
  if (numShown) list.children[numShown]?.querySelector(".thumb").focus();
}

function statusLine(answer) {
  const t = answer.timings_ms;
  const took = make("span", "took", milliseconds(t.total));
  took.title = Object.entries(t)
    .map(([step, ms]) => `${step} ${milliseconds(ms)}`)
    .concat(answer.effective.recall_reason ?? [])
    .join("\n");
  const steps = ["encode", "recall", "rerank"].filter((step) => step in t).map((step) => `${step} ${milliseconds(t[step])}`);
  const num = answer.results.length;
  return [`${many(num, "video")} of ${answer.total_indexed.toLocaleString()} in `, took, make("span", "breakdown", steps.join(" · "))];
}

/** What the player needs to know of a hit. */
const item = (hit, kind, full) => ({
  video_id: hit.video_id,
  title: hit.title,
  duration_s: hit.duration_s,
  moments: hit.moments,
  grains: hit.explain.grains,
  kind,
  full,
});

function card(hit, kind, full) {
  const node = fromTemplate("t-hit");
  const best = hit.moments[0] ?? { start_s: 0, end_s: hit.duration_s, best_s: 0, score: hit.score };
  const thumb = node.querySelector(".thumb");
  const shown = item(hit, kind, full);
  node.dataset.videoId = hit.video_id;
  setImage(node.querySelector("img"), api.thumbnailUrl(hit.video_id, best.best_s));
  node.querySelector(".time").textContent = clockTenths(best.best_s);
  node.querySelector(".title").textContent = hit.title;
  node.querySelector(".title").title = hit.title;
  node.querySelector(".score").textContent = score(hit.score);
  node.querySelector(".score").title = note(hit.explain.grains);
  drawSmall(node.querySelector(".grains"), hit.explain.grains, kind, full);
  if (hit.duration_s) node.querySelector(".strip").replaceChildren(...marks(shown));
  thumb.setAttribute("aria-label", `Play ${hit.title} at ${clockTenths(best.best_s)}`);
  thumb.addEventListener("click", () => handlers.onOpen(shown, best.best_s, thumb));
  node.querySelector(".chips").replaceChildren(...momentChips(shown, (m, chip) => handlers.onOpen(shown, m.best_s, chip)));
  const similar = node.querySelector(".similar");
  similar.setAttribute("aria-label", `Find moments similar to ${hit.title}, ${clock(best.start_s)} to ${clock(best.end_s)}`);
  similar.addEventListener("click", () => handlers.onSimilar(shown, best));
  return node;
}

/** Mark the card whose video the player shows. */
export function markPlaying(videoId) {
  for (const node of list.children) node.classList.toggle("playing", node.dataset.videoId === videoId);
}

/** Drop a removed video's card. */
export const forget = (videoId) => [...list.children].find((node) => node.dataset.videoId === videoId)?.remove();

/** Arrow keys walk over the cards as they lie on the page. */
function moveAmong(event) {
  const thumbs = [...list.querySelectorAll(".thumb")];
  const here = thumbs.indexOf(event.target.closest(".card")?.querySelector(".thumb"));
  if (here < 0) return;
  const columns = thumbs.filter((thumb) => thumb.offsetTop === thumbs[0].offsetTop).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  if (here + step < 0) byId("q").focus();
  else thumbs[Math.min(thumbs.length - 1, here + step)].focus();
}
