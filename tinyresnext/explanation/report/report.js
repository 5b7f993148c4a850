// What a person chooses, and what the page then shows.

const data = JSON.parse(document.getElementById("data").textContent);
const cam = unpack(data.cam);
const stages = data.stages.map((stage) => ({
  ...stage, gradCam: unpack(stage.gradCam), channelMaps: unpack(stage.channelMaps),
}));
const blocks = data.blocks.map((block) => ({ ...block, maps: unpack(block.maps), off: new Set() }));
const SHARE = 0, CHANNEL = 1, CLASSES = 2; // the groups of a block's maps
const state = { first: data.label, second: -1, block: blocks.length - 1, view: "effect", sort: "order" };
const at = (id) => document.getElementById(id);
const one = (name, properties, ...inside) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...inside);
  return element;
};

// --- numbers ---------------------------------------------------------------------------------

const percent = (value) => `${(100 * value).toFixed(1)}\u00a0%`.replace("-", "\u2212");
const plain = (value) => value.toFixed(3).replace("-", "\u2212");
const signed = (value) => (value >= 0 ? "+" : "") + plain(value);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const name = (number) => data.classes[number].name;
const between = (of) => (state.second < 0 ? of(state.first) : of(state.first) - of(state.second));
const logit = () => between((k) => data.classes[k].logit);
const subject = () => (state.second < 0
  ? `the logit of ${name(state.first)}`
  : `the logit of ${name(state.first)} minus that of ${name(state.second)}`);
const toned = (text, value) => one("span", { className: value < 0 ? "against" : "for", textContent: text });

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
  effect: "To first order: the term times the gradient of the logit. Orange raises it, blue lowers it. A map adds up to the term's effect.",
  share: "Orange: the term points the way of the block's output at this position. Blue: it points against it. A map adds up to the term's share.",
  channel: "What the term adds to this one channel, whose mean after the ReLU is the largest. The number is the mean over all positions.",
};

// --- sections --------------------------------------------------------------------------------

function figure(frame, title, ...more) {
  return one("figure", {}, frame, one("figcaption", {}, title, ...more));
}

function showEvidence() {
  const map = (of) => (state.second < 0 ? of(state.first) : minus(of(state.first), of(state.second)));
  const exactMap = map((k) => cam.map(0, k));
  const row = [figure(framed(cam, exactMap, largest([exactMap]), `Class activation map of ${subject()}`, true),
    "class activation map (exact)")];
  for (const stage of stages) {
    const estimate = map((k) => stage.gradCam.map(k, 0));
    row.push(figure(framed(stage.gradCam, estimate, largest([estimate]), `Grad-CAM of ${stage.name}`, true),
      `Grad-CAM, ${stage.name}`));
  }
  at("evidence").replaceChildren(...row);
  const bias = between((k) => data.classes[k].bias);
  at("cam-sum").textContent = `Mean of the map ${signed(logit() - bias)}, constant (the classifier's bias) `
    + `${signed(bias)}: together ${subject()}, ${plain(logit())}.`;
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
    return [one("h3", { textContent: `${stage.name}: ${c} channels of ${h} × ${w}` }),
      one("div", { className: "row channels" }, ...row)];
  }));
}

function showBlocks() {
  const paths = blocks[0].terms.length - 2;
  at("equation").textContent = paths === 1
    ? "y = T₀(x) + shift + shortcut(x)" : `y = T₀(x) + … + T${subscript(paths - 1)}(x) + shift + shortcut(x)`;
  at("blocks").tBodies[0].replaceChildren(...blocks.map((block, i) => {
    const radio = one("input", { type: "radio", name: "block", value: i, checked: i === state.block });
    radio.addEventListener("change", () => { state.block = i; showStrips(); showBlock(); });
    const [h, w, c] = block.shape;
    return one("tr", {},
      one("th", { scope: "row" }, one("label", {}, radio, ` ${block.name}`)),
      one("td", { textContent: `${h}\u00a0×\u00a0${w}\u00a0×\u00a0${c}` }),
      ...[sum(block.shares.slice(0, paths)), block.shares[paths], block.shares[paths + 1]].map((share) =>
        one("td", { className: "number", textContent: percent(share) })),
      one("td", {}, one("canvas", {})));
  }));
}

function subscript(value) { return String(value).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]); }

function showStrips() {
  const title = VIEWS[state.view](blocks[state.block]);
  at("strip-title").textContent = state.view === "channel" ? "the strongest channel" : title;
  at("blocks").querySelectorAll("canvas").forEach((canvas, i) => {
    const block = blocks[i], maps = block.terms.map((_, term) => mapOf(block, term, state.view));
    strip(canvas, block.maps, maps, largest(maps));
    const order = block.terms.map((_, term) => term).sort((a, b) =>
      Math.abs(number(block, b, state.view)) - Math.abs(number(block, a, state.view)));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${block.terms.length} maps; largest: ${block.terms[order[0]]}, `
      + written(number(block, order[0], state.view), state.view));
  });
}

// --- one block -------------------------------------------------------------------------------

function showBlock() {
  const block = blocks[state.block], [h, w, c] = block.shape, paths = block.terms.length - 2;
  at("block-title").textContent = `One block: ${block.name}`;
  const kinds = { identity: "its input itself", projection: "its input after a 1x1 convolution",
    padding: "its input, subsampled and padded with zeros" };
  at("about").textContent = `${paths} path${paths === 1 ? "" : "s"}, output ${h} × ${w} × ${c}`
    + `${block.strides > 1 ? " (half as high and wide as its input)" : ""}. The shortcut carries ${kinds[block.shortcut]}.`
    + `${paths === 1 ? " With one path, this is a block of ResNet: all of F(x) is a single term." : ""}`;
  at("views").replaceChildren(...Object.entries(VIEWS).map(([view, text]) => {
    const radio = one("input", { type: "radio", name: "view", value: view, checked: view === state.view });
    radio.addEventListener("change", () => { state.view = view; showStrips(); showTerms(); });
    return one("label", {}, radio, ` ${text(block)}`);
  }));
  at("exact-about").textContent = block.exact
    ? "Exact: what the logit loses when this term alone is left out and the rest of the network runs again."
    : `The exact effects of this block were not computed; make the page again with --block ${block.name}, or with --block all.`;
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
  return block.terms.map((_, term) => term).sort((a, b) => key(b) - key(a) || a - b);
}

function showTerms() {
  const block = blocks[state.block], view = state.view;
  const maps = block.terms.map((_, term) => mapOf(block, term, view)), most = largest(maps);
  at("view-about").textContent = ABOUT[view];
  const swatch = one("canvas", {});
  swatch.setAttribute("aria-hidden", "true");
  paint(swatch, Float64Array.from({ length: 81 }, (_, i) => (i - 40) / 40), 81, 1);
  at("legend").replaceChildren(`One scale for all terms of the block: ${written(-most, view)}`, swatch, written(most, view));
  at("terms").replaceChildren(...sorted(block).map((term) => card(block, term, maps[term], most)));
  showSum(maps);
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
  item.append(one("label", {}, box, one("span", { className: "name", textContent: ` ${block.terms[term]}` }),
    framed(block.maps, map, most, "", false), ...lines));
  return item;
}

function showSum(maps = null) {
  const block = blocks[state.block], view = state.view, size = block.maps.down * block.maps.across;
  const all = maps ?? block.terms.map((_, term) => mapOf(block, term, view));
  const on = block.terms.map((_, term) => term).filter((term) => !block.off.has(term));
  const off = [...block.off];
  const [whole, kept] = [sumOf(all, size), sumOf(on.map((term) => all[term]), size)];
  const most = Math.max(largest([whole]), largest([kept]));
  const total = (terms) => written(sum(terms.map((term) => number(block, term, view))), view);
  at("sums").replaceChildren(
    figure(framed(block.maps, whole, most, "Sum of all terms", true), `all terms: ${total([...on, ...off])}`),
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
  let text = `${start} Without ${which} it is about ${plain(logit() - change)} to first order (${signed(-change)})`;
  if (off.length === 1 && block.exact) {
    const lost = exact(block, off[0]);
    text += `, and exactly ${plain(logit() - lost)} (${signed(-lost)})`;
  }
  return `${text}.`;
}

function switchTerms(keep) {
  const block = blocks[state.block];
  block.off = new Set(block.terms.map((_, term) => term).filter((term) => !keep(block.off.has(term))));
  showTerms();
}

function everything() {
  showEvidence();
  showStrips();
  showBlock();
}

// --- start -----------------------------------------------------------------------------------

function fill(select, options, chosen, change) {
  select.replaceChildren(...options.map(([value, text]) => one("option", { value, textContent: text })));
  select.value = chosen;
  select.addEventListener("change", () => { change(select.value); });
}

const names = data.classes.map((_, k) => [k, name(k)]);
fill(at("first"), names, state.first, (value) => { state.first = Number(value); everything(); });
fill(at("second"), [[-1, "none"], ...names], -1, (value) => { state.second = Number(value); everything(); });
fill(at("sort"), [["order", "their order"], ["share", "share, largest first"],
  ["effect", "first-order effect, most helpful first"], ["size", "first-order effect, largest either way"],
  ["exact", "exact effect, most helpful first"]], "order", (value) => { state.sort = value; showTerms(); });
at("all").addEventListener("click", () => switchTerms(() => true));
at("none").addEventListener("click", () => switchTerms(() => false));
at("swap").addEventListener("click", () => switchTerms((wasOff) => wasOff));
const coarse = blocks.filter((block) => data.blocks[blocks.indexOf(block)].maps.factor > 1).map((block) => block.name);
at("precision").textContent = "The numbers are those of the Python interface, unrounded in the page's data. "
  + "Maps are stored with 16 bits a value" + (coarse.length
  ? `; in ${coarse.join(", ")}, a square shows the sum of several positions, so that the page stays small.` : ".");
if (at("image").naturalWidth < 128) document.body.classList.add("small-image");
at("image").addEventListener("load", () => document.body.classList.toggle("small-image", at("image").naturalWidth < 128));
showBlocks();
showStages();
everything();
