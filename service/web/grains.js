/** The four grains of a score as small bars. */

import { make } from "/web/dom.js";
import { score } from "/web/format.js";

const NAMES = {
  text: {
    video_sentence: "Whole stretch, whole sentence",
    video_word: "Whole stretch, single words",
    frame_sentence: "Single frames, whole sentence",
    frame_word: "Single frames, single words",
  },
  video: {
    video_sentence: "Whole stretch, whole clip",
    video_word: "Whole stretch, frames of the clip",
    frame_sentence: "Single frames, whole clip",
    frame_word: "Single frames, frames of the clip",
  },
};

const entries = (grains, kind) => Object.entries(NAMES[kind]).map(([key, name]) => ({ name, value: grains[key] ?? 0 }));

/** The largest grain among the hits: full length of a bar. Bars start at zero, so that lengths compare honestly. */
export const fullLength = (hits) => Math.max(1e-6, ...hits.flatMap((hit) => Object.values(hit.explain.grains)));

const share = (value, full) => `${(100 * Math.min(1, Math.max(0.04, value / full))).toFixed(1)}%`;

/** Four upright bars; the numbers are in the label. */
export function drawSmall(place, grains, kind, full) {
  const parts = entries(grains, kind);
  const label = parts.map(({ name, value }) => `${name}: ${score(value)}`).join("\n");
  place.setAttribute("aria-label", `Four parts of the score. ${label}`);
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
