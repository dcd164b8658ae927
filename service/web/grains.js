/** The parts of a score as small bars: X-CLIP's four grains, or whatever parts the scorer names. */

import { make } from "./dom.js";
import { score } from "./format.js";

const NAMES = {
  text: {
    video_sentence: "Whole stretch, whole sentence",
    video_word: "Whole stretch, single words",
    frame_sentence: "Single frames, whole sentence",
    frame_word: "Single frames, single words",
    global: "Whole stretch, whole sentence",
    aligned: "Topics of the stretch, topics of the sentence",
    joint: "Sentence and frames, read together",
  },
  video: {
    video_sentence: "Whole stretch, whole clip",
    video_word: "Whole stretch, frames of the clip",
    frame_sentence: "Single frames, whole clip",
    frame_word: "Single frames, frames of the clip",
    global: "Whole stretch, whole clip",
    aligned: "Topics of the stretch, topics of the clip",
  },
};

const WAYS = { 2: "two ways", 3: "three ways", 4: "four ways" };

const entries = (grains, kind) => Object.entries(grains).map(([key, value]) => ({ name: NAMES[kind][key] ?? key, value }));

/** The largest part among the hits: full length of a bar. Bars start at zero, so that lengths compare honestly. */
export const fullLength = (hits) => Math.max(1e-6, ...hits.flatMap((hit) => Object.values(hit.explain.grains)));

const share = (value, full) => `${(100 * Math.min(1, Math.max(0.04, value / full))).toFixed(1)}%`;

/** What the score is made of, in a sentence. */
export function note(grains) {
  if ("joint" in grains) return "What a network says that read your sentence together with the frames of the best stretch; it has no scale.";
  const ways = WAYS[Object.keys(grains).length];
  const made = "aligned" in grains ? "mixes them" : "is their mean";
  return `Similarity of what you asked to the best stretch${ways ? `, ${ways}; the score ${made}` : ""}.`;
}

/** One upright bar for each part; the numbers are in the label. */
export function drawSmall(place, grains, kind, full) {
  const parts = entries(grains, kind);
  const label = parts.map(({ name, value }) => `${name}: ${score(value)}`).join("\n");
  place.setAttribute("aria-label", `What the score is made of. ${label}`);
  place.title = label;
  place.replaceChildren(
    ...parts.map(({ value }) => {
      const bar = make("i");
      bar.style.height = share(value, full);
      return bar;
    }),
  );
}

/** A labelled list with a bar and a number each. */
export function drawFull(list, grains, kind, full) {
  list.replaceChildren(
    ...entries(grains, kind).map(({ name, value }) => {
      const item = make("li");
      const track = make("span", "track");
      const bar = make("i");
      bar.style.width = share(value, full);
      track.append(bar);
      item.append(make("span", "name", name), make("span", "value", score(value)), track);
      return item;
    }),
  );
}
