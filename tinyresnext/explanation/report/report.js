// What a person chooses, and what the page then shows.

const cam = unpack(data.cam);
const stages = data.stages.map((stage) => ({
  ...stage, gradCam: unpack(stage.gradCam), channelMaps: unpack(stage.channelMaps),
}));
const blocks = data.blocks.map((block) => ({ ...block, maps: unpack(block.maps), off: new Set() }));
const SHARE = 0, CHANNEL = 1, CLASSES = 2; // the groups of a block's maps
const state = {
  first: data.label, second: -1, block: blocks.length - 1, view: "effect", sort: "order",
};
const at = (id) => document.getElementById(id);
const one = (name, properties, ...inside) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...inside);
  return element;
};

// --- numbers ---------------------------------------------------------------------------------

const name = (number) => data.classes[number].name;
const between = (of) => (state.second < 0 ? of(state.first) : of(state.first) - of(state.second));
const logit = () => between((k) => data.classes[k].logit);
const subject = () => `the logit of ${name(state.first)}`
  + (state.second < 0 ? "" : ` minus that of ${name(state.second)}`);
function toned(text, value) {
  return one("span", { className: value < 0 ? "against" : "for", textContent: text });
}

function effect(block, term) { return between((k) => block.effects[k][term]); }
function exact(block, term) { return block.exact && between((k) => block.exact[k][term]); }

function number(block, term, view) {
  if (view === "share") return block.shares[term];
  return view === "channel" ? block.channelMeans[term] : effect(block, term);
}

function written(value, view) { return view === "share" ? percent(value) : signed(value); }

function mapOf(block, term, view) {
  if (view === "share") return block.maps.map(SHARE, term);
  if (view === "channel") return block.maps.map(CHANNEL, term);
  const map = block.maps.map(CLASSES + state.first, term);
  return state.second < 0 ? map : minus(map, block.maps.map(CLASSES + state.second, term));
}

const VIEWS = {
  effect: () => `effect on ${subject()}`,
  share: () => "share of the block's output",
  channel: (block) => `channel ${block.channel} of the output`,
};
const ABOUT = {
  effect: "To first order: the term times the gradient of the logit. Orange raises the logit, blue "
    + "lowers it. A map adds up to the term's effect.",
  share: "Orange: at this position, the term points the way of the block's output. Blue: it points "
    + "the other way. A map adds up to the term's share.",
  channel: "What the term adds to this one channel, whose mean after the ReLU is the largest. "
    + "Orange is above zero, blue below. The number is the mean over all positions.",
};

// --- sections --------------------------------------------------------------------------------

function figure(frame, title, ...more) {
  return one("figure", {}, frame, one("figcaption", {}, title, ...more));
}

function showEvidence() {
  // The class activation map of a difference is the difference of the maps; Grad-CAM's is not.
  const overlay = (grid, read, title, caption, exact) => {
    const [first, second] = [read(state.first), state.second < 0 ? null : read(state.second)];
    const map = second ? minus(first, second) : first;
    const text = second && !exact
      ? `Difference of ${title} of ${name(state.first)} and ${title} of ${name(state.second)}`
      : `${title} of ${subject()}`;
    const more = exact ? ", difference" : ", difference of the two classes' maps";
    return figure(framed(grid, map, largest([map]), text, true), caption + (second ? more : ""));
  };
  at("evidence").replaceChildren(
    overlay(cam, (k) => cam.map(0, k), "Class activation map", "class activation map (exact)",
      true),
    ...stages.map((stage) => overlay(stage.gradCam, (k) => stage.gradCam.map(k, 0),
      `Grad-CAM, ${stage.name},`, `Grad-CAM, ${stage.name}`, false)));
  const bias = between((k) => data.classes[k].bias);
  at("cam-sum").textContent = `The mean of the class activation map is ${signed(logit() - bias)}; `
    + `the constant, which is the classifier's bias, is ${signed(bias)}. `
    + `Together: ${subject()}, ${plain(logit())}.`;
}

function showStages() {
  at("stages").replaceChildren(...stages.flatMap((stage) => {
    const [h, w, c] = stage.shape;
    const row = stage.channels.map((channel, i) => {
      const values = stage.channelMaps.map(i, 0);
      const text = `Channel ${channel.number} of ${stage.name}`;
      return figure(framed(stage.channelMaps, values, largest([values]), text, false),
        `channel ${channel.number}, mean ${plain(channel.mean)}`);
    });
    const title = `${stage.name}: ${c} channels of ${h} × ${w} positions`;
    return [one("h3", { textContent: title }), one("div", { className: "row channels" }, ...row)];
  }));
}

function showBlocks() {
  const paths = blocks[0].terms.length - 2;
  const last = paths > 1 ? [`T${subscript(paths - 1)}(x)`] : [];
  const sums = ["T₀(x)", ...(paths > 2 ? ["…"] : []), ...last];
  at("equation").textContent = `y = ${sums.join(" + ")} + shift + shortcut(x)`;
  at("blocks").tBodies[0].replaceChildren(...blocks.map((block, i) => {
    const chosen = i === state.block;
    const radio = one("input", { type: "radio", name: "block", value: i, checked: chosen });
    radio.addEventListener("change", () => { state.block = i; showStrips(); showBlock(); });
    const [h, w, c] = block.shape, ofPaths = sum(block.shares.slice(0, paths));
    const shares = [ofPaths, block.shares[paths], block.shares[paths + 1]];
    const onclick = () => radio.click(), own = (event) => event.stopPropagation();
    return one("tr", { onclick },
      one("th", { scope: "row" }, one("label", { onclick: own }, radio, ` ${block.name}`)),
      one("td", { textContent: `${h}\u00a0×\u00a0${w}\u00a0×\u00a0${c}` }),
      ...shares.map((share) => one("td", { className: "number", textContent: percent(share) })),
      one("td", {}, one("canvas", {})));
  }));
}

function showStrips() {
  const { view } = state;
  at("strip-title").textContent = view === "channel" ? "one channel" : VIEWS[view]();
  at("blocks").querySelectorAll("canvas").forEach((canvas, i) => {
    const block = blocks[i], terms = [...block.terms.keys()];
    const maps = terms.map((term) => mapOf(block, term, view));
    strip(canvas, block.maps, maps, scalesOf(maps), 17);
    const size = (term) => Math.abs(number(block, term, view));
    const best = terms.reduce((most, term) => (size(term) > size(most) ? term : most));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${terms.length} maps; the largest number is that of `
      + `${block.terms[best]}, ${written(number(block, best, view), view)}`);
  });
}

// --- one block -------------------------------------------------------------------------------

const SHORTCUTS = {
  identity: "is its input itself", projection: "is its input after a 1x1 convolution",
  padding: "is its input, subsampled and padded with zeros",
  averaged: "is a 1x1 convolution of the means of 2x2 values of its input",
};

function showBlock() {
  const block = blocks[state.block], [h, w, c] = block.shape, paths = block.terms.length - 2;
  at("block-title").textContent = `One block: ${block.name}`;
  at("about").textContent = `This block has ${paths} path${paths === 1 ? "" : "s"}. Its output has `
    + `${h} × ${w} positions${block.stride > 1 ? ", half as many each way as its input," : ""} `
    + `and ${c} channels. Its shortcut ${SHORTCUTS[block.shortcut]}.`
    + `${paths === 1 ? " With one path it is a block of ResNet: F(x) is a single term." : ""}`;
  at("views").replaceChildren(...Object.entries(VIEWS).map(([view, text]) => {
    const checked = view === state.view;
    const radio = one("input", { type: "radio", name: "view", value: view, checked });
    radio.addEventListener("change", () => { state.view = view; showStrips(); showTerms(); });
    return one("label", {}, radio, ` ${text(block)}`);
  }));
  at("exact-about").textContent = block.exact
    ? "Exact: what the logit loses when this term alone is left out and the rest of the network "
      + "runs again."
    : "The exact effects of this block were not computed. The option --block "
      + `${block.name} of the command adds them, --block all those of all blocks.`;
  showTerms();
}

function sorted(block) {
  const keys = {
    order: () => 0,
    share: (term) => block.shares[term],
    effect: (term) => effect(block, term),
    size: (term) => Math.abs(effect(block, term)),
    exact: (term) => exact(block, term) ?? 0,
  };
  const key = keys[state.sort];
  return [...block.terms.keys()].sort((a, b) => key(b) - key(a) || a - b);
}

function showTerms() {
  const block = blocks[state.block], { view } = state;
  const maps = block.terms.map((_, term) => mapOf(block, term, view)), scales = scalesOf(maps);
  at("view-about").textContent = ABOUT[view] + (view === "effect" ? behind(block) : "");
  const swatch = one("canvas", {});
  swatch.setAttribute("aria-hidden", "true");
  paint(swatch, Float64Array.from({ length: 81 }, (_, i) => (i - 40) / 40), 81, 1);
  const short = (value) => Number(value.toPrecision(2)).toString();
  const most = (scale) => (view === "share" ? `${short(100 * scale)}\u00a0%` : short(scale));
  at("legend").replaceChildren(`Colours of the paths: \u2212${most(scales[0])}`, swatch,
    `+${most(scales[0])}. The shift has a scale of its own, up to `
    + `±${most(scales.at(-2))}, and so has the shortcut, up to ±${most(scales.at(-1))}.`);
  at("terms").replaceChildren(
    ...sorted(block).map((term) => card(block, term, maps[term], scales[term])));
  showSum(maps);
}

// ReLUs are linear near an input: what constants add depends on no term, but an excitation does.
function behind(block) {
  const effects = block.terms.map((_, term) => effect(block, term)), paths = effects.slice(0, -2);
  const said = [` All terms add up to ${signed(sum(effects))}; the rest of ${subject()}, `
    + `${signed(logit() - sum(effects))}, comes from constants of later layers`
    + `${block.excited ? ", and from the factors of squeeze and excitation in later blocks" : ""}.`,
  `paths and shift together, which the block adds to its shortcut: `
    + `${signed(sum(effects.slice(0, -1)))}.`];
  const path = (value) => `${block.terms[paths.indexOf(value)]} (${signed(value)})`;
  const [most, least] = [Math.max(...paths), Math.min(...paths)];
  if (paths.length > 1 && most > 0) said.push(`${path(most)} raises it most of all paths.`);
  if (paths.length > 1 && least < 0) said.push(`${path(least)} lowers it most.`);
  return said.map((text, i) => (i ? text[0].toUpperCase() + text.slice(1) : text)).join(" ");
}

function card(block, term, map, most) {
  const box = one("input", { type: "checkbox", checked: !block.off.has(term), value: term });
  const item = one("li", { className: block.off.has(term) ? "off" : "" });
  box.addEventListener("change", () => {
    block.off[box.checked ? "delete" : "add"](term);
    item.className = box.checked ? "" : "off";
    showSum();
  });
  const rows = [["share", percent(block.shares[term])]];
  if (state.view === "channel") rows.push(["adds", signed(block.channelMeans[term])]);
  rows.push(["first order", signed(effect(block, term)), effect(block, term)]);
  if (block.exact) rows.push(["exact", signed(exact(block, term)), exact(block, term)]);
  const lines = rows.map(([what, text, value]) => one("span", { className: "what" }, `${what} `,
    one("b", {}, value === undefined ? text : toned(text, value))));
  const title = one("span", { className: "name", textContent: ` ${block.terms[term]}` });
  item.append(one("label", {}, box, title, framed(block.maps, map, most, "", false), ...lines));
  return item;
}

function showSum(maps = null) {
  const block = blocks[state.block], view = state.view, size = block.maps.down * block.maps.across;
  const all = maps ?? block.terms.map((_, term) => mapOf(block, term, view));
  const on = [...block.terms.keys()].filter((term) => !block.off.has(term));
  const off = [...block.off];
  const [whole, kept] = [sumOf(all, size), sumOf(on.map((term) => all[term]), size)];
  const most = Math.max(largest([whole]), largest([kept]));
  const total = (terms) => written(sum(terms.map((term) => number(block, term, view))), view);
  at("sums").replaceChildren(
    figure(framed(block.maps, whole, most, "Sum of all terms", true),
      `all terms: ${total([...on, ...off])}`),
    figure(framed(block.maps, kept, most, "Sum of the terms that are on", true),
      `the ${on.length} of ${block.terms.length} that are on: ${total(on)}`));
  at("sum").textContent = said(block, off);
}

// What leaving terms out does to the logit, in a sentence.
function said(block, off) {
  const start = `With the whole block, ${subject()} is ${plain(logit())}.`;
  if (off.length === 0) return `${start} Switch terms off to see what they do to it.`;
  const change = sum(off.map((term) => effect(block, term)));
  const which = off.length === 1 ? block.terms[off[0]] : `these ${off.length} terms`;
  let text = `${start} Without ${which} it is, to first order, ${plain(logit() - change)} `
    + `(${signed(-change)})`;
  if (off.length === 1 && block.exact) {
    const lost = exact(block, off[0]);
    text += `, and exactly ${plain(logit() - lost)} (${signed(-lost)})`;
  }
  return `${text}.`;
}

function switchTerms(keep) {
  const block = blocks[state.block];
  block.off = new Set([...block.terms.keys()].filter((term) => !keep(block.off.has(term))));
  showTerms();
}

function everything() {
  if (state.second === state.first) state.second = -1;
  at("second").value = state.second;
  for (const option of at("second").options) option.disabled = Number(option.value) === state.first;
  showEvidence();
  showStrips();
  showBlock();
}

// --- start -----------------------------------------------------------------------------------

function fill(select, options, chosen, change) {
  select.replaceChildren(
    ...options.map(([value, text]) => one("option", { value, textContent: text })));
  select.value = chosen;
  select.addEventListener("change", () => { change(select.value); });
}

const names = data.classes.map((_, k) => [k, name(k)]);
const ORDERS = [
  ["order", "their order"], ["share", "share, largest first"],
  ["effect", "first-order effect, most helpful first"],
  ["size", "first-order effect, largest either way"],
  ["exact", "exact effect, most helpful first"],
];
const choose = (key, show, read = String) => (value) => { state[key] = read(value); show(); };
fill(at("first"), names, state.first, choose("first", everything, Number));
fill(at("second"), [[-1, "none"], ...names], -1, choose("second", everything, Number));
fill(at("sort"), ORDERS, "order", choose("sort", showTerms));
at("all").addEventListener("click", () => switchTerms(() => true));
at("none").addEventListener("click", () => switchTerms(() => false));
at("swap").addEventListener("click", () => switchTerms((wasOff) => wasOff));
const coarse = data.blocks.filter((block) => block.maps.factor > 1).map((block) => block.name);
at("precision").textContent = "The page's data has the numbers of the Python interface, not "
  + "rounded. Its maps have 16 bits a value." + (coarse.length ? " So that the page stays small, a "
  + `square of a map of ${coarse.join(", ")} is the sum of several positions.` : "");
showBlocks();
showStages();
everything();
