/** The choice of how results are scored: what the served model offers, and what is in use. Knows no address. */

import * as api from "./api.js";
import { byId, make } from "./dom.js";

const TITLES = {
  text: {
    aosm: "Four ways, weighed",
    multi_grained: "Four ways, evenly",
    maxsim: "Best frame for each word",
    max_frame: "Best single frame",
    mean: "Whole stretch",
    clip2video: "Stretch and aligned topics",
    tight: "Sentence and frames together",
  },
  video: { maxsim: "Frame by frame" },
};

const select = byId("scorer");

let offered = []; // as GET /scorers lists them
let inUse = null; // {name, kind} of the answer on the page

const isDefault = (scorer, kind) => (kind === "text" ? scorer.is_default : scorer.is_default_of_clips);

/** What a query of this kind can be scored by, the default first. */
const fitting = (kind) =>
  offered
    .filter((scorer) => kind === "text" || scorer.takes_clips)
    .sort((a, b) => isDefault(b, kind) - isDefault(a, kind));

/** onChoose(name) when a person chooses; null where it is what the model would take anyway. */
export async function setUp({ onChoose }) {
  select.addEventListener("change", () => onChoose(select.value === fitting(inUse.kind)[0].name ? null : select.value));
  try {
    offered = (await api.scorers()).scorers;
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    return; // nothing to choose from: the model takes its own
  }
  draw();
}

/** Show what an answer was scored by; kind: "text" or "video", what the query was. */
export function show(name, kind) {
  inUse = { name, kind };
  draw();
}

function draw() {
  const scorers = inUse ? fitting(inUse.kind) : [];
  byId("scorer-choice").hidden = scorers.length < 2;
  if (scorers.length < 2) return;
  select.replaceChildren(
    ...scorers.map(({ name, about }, i) => {
      const title = TITLES[inUse.kind][name] ?? TITLES.text[name] ?? name;
      const option = make("option", "", i ? title : `${title} (default)`);
      option.value = name;
      option.title = about;
      return option;
    }),
  );
  select.value = inUse.name;
  select.title = scorers.find(({ name }) => name === inUse.name)?.about ?? "";
}
