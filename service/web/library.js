/** The library view: what is indexed, what failed and why; remove, try again, find similar. */

import * as api from "./api.js";
import { byId, fromTemplate, setImage, showNotice } from "./dom.js";
import { bytes, clock, many } from "./format.js";

const PAGE = 30;
const RECENT = 6;

let handlers = { onOpen: () => {}, onSimilar: () => {}, onRemoved: () => {}, onRetried: () => {} };
let cursor = null;

export function setUp(given) {
  handlers = given;
  byId("more-videos").addEventListener("click", () => guarded(loadMore));
}

/** Run an action; what goes wrong is shown at the head of the library. */
async function guarded(action) {
  const box = byId("library-error");
  try {
    await action();
    showNotice(box, null);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    showNotice(box, error);
  }
}

/** Read the lists again. */
export const refresh = () =>
  guarded(async () => {
    const [ready, failed] = await Promise.all([
      api.videos({ status: "ready", limit: PAGE }),
      api.videos({ status: "failed", limit: PAGE }),
    ]);
    fill("failed", "failed-list", failed.videos);
    fill("videos", "video-list", ready.videos);
    turnTo(ready.next_cursor);
  });

async function loadMore() {
  const page = await api.videos({ status: "ready", limit: PAGE, cursor });
  byId("video-list").append(...page.videos.map(row));
  turnTo(page.next_cursor);
}

function turnTo(next) {
  cursor = next;
  byId("more-videos").hidden = !cursor;
}

function fill(section, list, videos) {
  byId(section).hidden = !videos.length;
  byId(list).replaceChildren(...videos.map(row));
}

/** A few videos for the start page. */
export async function showRecent() {
  const { videos } = await api.videos({ status: "ready", limit: RECENT });
  byId("recent").hidden = !videos.length;
  byId("recent-list").replaceChildren(
    ...videos.map((video) => {
      const node = fromTemplate("t-recent");
      const thumb = node.querySelector(".thumb");
      setImage(node.querySelector("img"), poster(video));
      node.querySelector(".time").textContent = clock(video.duration_s);
      node.querySelector(".title").textContent = video.title;
      thumb.setAttribute("aria-label", `Play ${video.title}`);
      thumb.addEventListener("click", () => handlers.onOpen(item(video), 0, thumb));
      return node;
    }),
  );
}

/** What the player needs to know about a video. */
export const item = (video) => ({
  video_id: video.video_id,
  title: video.title,
  duration_s: video.duration_s,
  codec: video.codec,
  moments: [],
});

/** A picture a little into the video: first frames are often black. */
const poster = (video) => api.thumbnailUrl(video.video_id, Math.min(1, (video.duration_s ?? 0) / 3));

function row(video) {
  const node = fromTemplate("t-video");
  const [thumb, similar, retry, remove] = ["thumb", "similar", "retry", "delete"].map((name) => node.querySelector(`.${name}`));
  const isFailed = video.status === "failed";
  node.dataset.videoId = video.video_id;
  node.querySelector(".title").textContent = video.title;
  node.querySelector(".title").title = video.title;
  node.querySelector(".facts").textContent = facts(video).join(" · ");
  if (isFailed) {
    thumb.remove();
    similar.remove();
    retry.hidden = false;
    retry.setAttribute("aria-label", `Try ${video.title} again`);
    retry.addEventListener("click", () => guarded(() => tryAgain(video)));
    const reason = node.querySelector(".reason");
    reason.textContent = video.error?.message ?? "No reason was recorded.";
    reason.hidden = false;
  } else {
    setImage(node.querySelector("img"), poster(video));
    thumb.setAttribute("aria-label", `Play ${video.title}`);
    thumb.addEventListener("click", () => handlers.onOpen(item(video), 0, thumb));
    similar.setAttribute("aria-label", `Find videos similar to ${video.title}`);
    similar.addEventListener("click", () => handlers.onSimilar(item(video)));
  }
  remove.setAttribute("aria-label", `Remove ${video.title}`);
  remove.addEventListener("click", () => guarded(() => confirmRemoval(video, node)));
  return node;
}

function facts(video) {
  const parts = [];
  if (video.duration_s) parts.push(clock(video.duration_s));
  if (video.width) parts.push(`${video.width} × ${video.height}`);
  if (video.codec) parts.push(video.codec);
  if (video.sampling === "keyframes") parts.push("key frames only");
  parts.push(bytes(video.size_bytes));
  return parts;
}

async function confirmRemoval(video, node) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent =
    `“${video.title}” is no longer found. An uploaded copy is deleted; a file indexed from a folder stays where it is.`;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "yes") return;
  await api.removeVideo(video.video_id);
  const next = node.nextElementSibling ?? node.previousElementSibling;
  const section = node.closest("section");
  node.remove();
  if (next) next.querySelector(".delete").focus();
  else section.hidden = true;
  handlers.onRemoved(video.video_id);
}

async function tryAgain(video) {
  const { jobs } = await api.jobs({ video_id: video.video_id, limit: 1 });
  await api.retryJob(jobs[0].job_id);
  handlers.onRetried();
}

/** Show how much there is. */
export function showCounts(info) {
  byId("library-status").textContent = info.videos
    ? `${many(info.videos, "video")} indexed, ${many(info.segments, "segment")}.`
    : "Nothing is indexed yet.";
}
