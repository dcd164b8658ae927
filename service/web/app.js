/** The page's frame: the address says what is shown; keys, drops and files turn into one of its verbs. */

import * as api from "./api.js";
import { byId } from "./dom.js";
import * as library from "./library.js";
import * as player from "./player.js";
import * as scorers from "./scorers.js";
import * as search from "./search.js";
import * as uploads from "./uploads.js";

const input = byId("q");
const clips = []; // File objects of this visit; history.state.clip is a place in here
let shownSearch = null; // what the search view shows now, as an address without the player's part
let numVideos = null;

// ---- the address -------------------------------------------------------------------------------------------------

/** The page's address with these parameters, relative so that it stays under the path of a proxy. */
function addressOf(params) {
  const query = new URLSearchParams(params).toString();
  return query ? `?${query}` : "./";
}

function go(params, state = null) {
  history.pushState(state, "", addressOf(params));
  render();
}

function render() {
  const params = new URLSearchParams(location.search);
  const isLibrary = params.get("view") === "library";
  byId("library-view").hidden = !isLibrary;
  byId("search-view").hidden = isLibrary;
  document.body.dataset.view = isLibrary ? "library" : "search";
  const [here, there] = isLibrary ? ["nav-library", "nav-search"] : ["nav-search", "nav-library"];
  byId(here).setAttribute("aria-current", "page");
  byId(there).removeAttribute("aria-current");
  if (isLibrary) byId("library-error").before(byId("activity"));
  else byId("recent").before(byId("activity"));
  if (isLibrary) library.refresh();
  else renderSearch(params);
  const title = isLibrary ? "Library" : params.get("q");
  document.title = title ? `${title} – Vidgrain` : "Vidgrain";
  if (!params.has("v")) player.close();
}

function renderSearch(params) {
  const clip = history.state?.clip;
  const number = (name) => (params.has(name) ? Number(params.get(name)) : undefined);
  const text = params.get("q");
  const stored = params.get("similar");
  const scorer = params.get("scorer");
  const key = JSON.stringify([text, stored, params.get("start"), params.get("end"), clip, scorer]);
  if (key === shownSearch) return showHome();
  shownSearch = key;
  input.value = text ?? "";
  if (text) search.show({ text, scorer });
  else if (stored) search.show({ videoId: stored, start_s: number("start"), end_s: number("end"), title: history.state?.title, scorer });
  else if (clip !== undefined && clips[clip]) search.show({ clip: clips[clip], scorer });
  else search.show(null);
  showHome();
}

/** Keep the player's place in the address, without a step in the history. */
function notePlayer(item, at_s) {
  const params = new URLSearchParams(location.search);
  params.delete("v");
  params.delete("t");
  if (item) {
    params.set("v", item.video_id);
    params.set("t", at_s.toFixed(2));
  }
  history.replaceState(history.state, "", addressOf(params));
  search.markPlaying(item?.video_id);
}

/** A shared link may name a video and a second. */
async function openShared() {
  const params = new URLSearchParams(location.search);
  if (!params.has("v")) return;
  try {
    player.open(library.item(await api.video(params.get("v"))), Number(params.get("t")) || 0);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    notePlayer(null, 0); // the video is gone: the search still stands
  }
}

// ---- verbs -------------------------------------------------------------------------------------------------------

/** The scorer in the address goes on into the next search. */
function withScorer(params) {
  const scorer = new URLSearchParams(location.search).get("scorer");
  return scorer ? { ...params, scorer } : params;
}

/** The same search, scored otherwise; null for the model's own way. */
function chooseScorer(name) {
  const params = new URLSearchParams(location.search);
  for (const part of ["v", "t"]) params.delete(part); // what the player shows of the score no longer holds
  if (name) params.set("scorer", name);
  else params.delete("scorer");
  go(params, history.state);
}

function searchClip(file) {
  clips.push(file);
  go(withScorer({}), { clip: clips.length - 1 });
}

function findSimilar(video, moment = null) {
  const range = moment ? { start: moment.start_s.toFixed(3), end: moment.end_s.toFixed(3) } : {};
  go(withScorer({ similar: video.video_id, ...range }), { title: video.title });
  window.scrollTo({ top: 0 });
}

function addFiles(files) {
  if (!files.length) return;
  uploads.add(files);
  if (numVideos) go({ view: "library" });
}

// ---- what the index holds ----------------------------------------------------------------------------------------

async function readIndex() {
  try {
    const info = await api.indexInfo();
    numVideos = info.videos;
    byId("nav-count").textContent = numVideos.toLocaleString();
    byId("nav-count").hidden = !numVideos;
    library.showCounts(info);
    showHome();
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    byId("model-line").textContent = error.detail;
  }
}

async function readVersion() {
  const { version, model } = await api.version();
  byId("model-line").textContent = `Vidgrain ${version}, model ${model}`;
}

function showHome() {
  const { view, mode } = document.body.dataset;
  const isHome = view === "search" && mode === "home";
  byId("welcome").hidden = !isHome || numVideos !== 0;
  byId("recent").hidden = true;
  if (isHome && numVideos) library.showRecent();
}

async function followOthers() {
  const pages = await Promise.all(["running", "queued"].map((status) => api.jobs({ status, limit: 100 })));
  const jobs = pages.flatMap((page) => page.jobs.reverse()); // listed newest first, done oldest first
  if (!jobs.length) return;
  const { videos } = await api.videos({ status: "pending", limit: 200 });
  const titles = new Map(videos.map((video) => [video.video_id, video.title]));
  uploads.follow(jobs, (job) => titles.get(job.video_id) ?? `Video ${job.video_id}`);
}

function whenIndexed() {
  readIndex();
  if (document.body.dataset.view === "library") library.refresh();
}

// ---- events ------------------------------------------------------------------------------------------------------

byId("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return input.focus();
  shownSearch = null; // the same words again ask again
  if (new URLSearchParams(location.search).get("q") === text) render();
  else go(withScorer({ q: text }));
});

for (const [name, params] of [["brand", {}], ["nav-search", {}], ["nav-library", { view: "library" }]])
  byId(name).addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(params);
  });
byId("clear-query").addEventListener("click", () => {
  go({});
  input.focus();
});

byId("clip-button").addEventListener("click", () => byId("clip-input").click());
byId("clip-input").addEventListener("change", ({ target }) => {
  if (target.files.length) searchClip(target.files[0]);
  target.value = "";
});
for (const zone of document.querySelectorAll("[data-pick]")) zone.addEventListener("click", () => byId("add-input").click());
byId("add-input").addEventListener("change", ({ target }) => {
  addFiles([...target.files]);
  target.value = "";
});

const veil = byId("dropveil");
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  byId("drop-search").hidden = !numVideos;
  veil.hidden = false;
});
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  for (const target of veil.children) target.classList.toggle("over", target.contains(event.target));
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) veil.hidden = true;
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  veil.hidden = true;
  const files = [...event.dataTransfer.files];
  if (!files.length) return;
  if (byId("drop-search").contains(event.target)) searchClip(files[0]);
  else addFiles(files);
});

addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || byId("confirm").open) return;
  const isTyping = event.target.matches("input, textarea, select");
  if (event.key === "Escape") {
    if (!veil.hidden) veil.hidden = true;
    else if (player.isOpen()) player.close();
    else if (isTyping) event.target.blur();
  } else if (isTyping) {
    if (event.key === "ArrowDown" && event.target === input) byId("results").querySelector(".thumb")?.focus();
  } else if (event.key === "/") {
    event.preventDefault();
    if (document.body.dataset.view === "library") go({});
    input.focus();
    input.select();
  } else if (event.key === "k" && player.isOpen()) {
    player.togglePlay();
  }
});

addEventListener("popstate", () => {
  player.close();
  notePlayer(null, 0);
  render();
});

player.setUp({ onSimilar: findSimilar, onChange: notePlayer });
search.setUp({ onOpen: player.open, onSimilar: findSimilar });
scorers.setUp({ onChoose: chooseScorer });
uploads.setUp({ onIndexed: whenIndexed });
library.setUp({
  onOpen: player.open,
  onSimilar: findSimilar,
  onRemoved: (videoId) => {
    player.forget(videoId);
    search.forget(videoId);
    readIndex();
  },
  onRetried: () => {
    library.refresh();
    followOthers();
  },
});

if (matchMedia("(pointer: fine)").matches && !location.search) input.focus();
render();
openShared();
readIndex();
readVersion();
followOthers();
