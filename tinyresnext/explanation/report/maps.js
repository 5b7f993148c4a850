// Numbers and maps: written, decoded from the page's data, computed with, and drawn.

const data = JSON.parse(document.getElementById("data").textContent);
const THUMBNAIL = 34; // pixels of a map in a strip

// Whole numbers of 16 bits in base64, little-endian, times the scale of their group.
function unpack(packed) {
  const down = Math.ceil(packed.height / packed.factor);
  const across = Math.ceil(packed.width / packed.factor);
  let numbers = null;
  function decoded() {
    if (numbers === null) {
      const text = atob(packed.data);
      numbers = new Int16Array(text.length / 2);
      for (let i = 0; i < numbers.length; i++) {
        const both = text.charCodeAt(2 * i) | (text.charCodeAt(2 * i + 1) << 8);
        numbers[i] = both > 32767 ? both - 65536 : both;
      }
    }
    return numbers;
  }
  return {
    down, across, count: packed.maps,
    // What part of the last square lies inside the image.
    stretch: [(down * packed.factor) / packed.height, (across * packed.factor) / packed.width],
    map(group, number) {
      const size = down * across;
      const start = (group * packed.maps + number) * size;
      const scale = packed.scales[group];
      return Float64Array.from(decoded().subarray(start, start + size), (v) => v * scale);
    },
  };
}

function minus(a, b) { return a.map((value, i) => value - b[i]); }

function sumOf(maps, size) {
  const total = new Float64Array(size);
  for (const map of maps) map.forEach((value, i) => { total[i] += value; });
  return total;
}

function largest(maps) {
  let most = 0;
  for (const map of maps) for (const value of map) most = Math.max(most, Math.abs(value));
  return most;
}

// The paths of a block share a scale; shift and shortcut are often far larger, and have their own.
function scalesOf(maps) {
  const ofPaths = largest(maps.slice(0, -2));
  return maps.map((map, term) => (term < maps.length - 2 ? ofPaths : largest([map])));
}

// Orange is above zero and blue below; the paler, the nearer to zero. Both show on white and black.
function colour(pixels, at, part) {
  const strength = Math.min(1, Math.abs(part));
  const [red, green, blue] = part >= 0 ? [214, 96, 4] : [46, 116, 200];
  pixels.set([red, green, blue, Math.round(255 * strength)], at);
}

function paint(canvas, values, width, most) {
  canvas.width = width;
  canvas.height = values.length / width;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => colour(image.data, 4 * i, most > 0 ? value / most : 0));
  context.putImageData(image, 0, 0);
}

// A map in a frame of the image's shape, over the image if that is wanted.
function framed(grid, values, most, text, over) {
  const frame = document.createElement("span");
  frame.className = "map";
  frame.style.aspectRatio = `${grid.across / grid.stretch[1]} / ${grid.down / grid.stretch[0]}`;
  if (over) {
    const under = document.createElement("img");
    under.src = document.getElementById("image").src;
    under.alt = "";
    frame.append(under);
  }
  const canvas = document.createElement("canvas");
  canvas.style.width = `${100 * grid.stretch[1]}%`;
  canvas.style.height = `${100 * grid.stretch[0]}%`;
  paint(canvas, values, grid.across, most);
  if (text) {
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${text}; ${place(values, grid)}`);
  } else {
    canvas.setAttribute("aria-hidden", "true");
  }
  frame.append(canvas);
  return frame;
}

// Where a map is strongest, in words.
function place(values, grid) {
  let best = 0;
  values.forEach((value, i) => { if (Math.abs(value) > Math.abs(values[best])) best = i; });
  const row = Math.floor(best / grid.across) + 1, column = (best % grid.across) + 1;
  return `strongest in row ${row} of ${grid.down}, column ${column} of ${grid.across}`;
}

// One canvas with many maps in rows, each with a scale of its own, and empty lines between them.
function strip(canvas, grid, maps, scales, columns) {
  const [width, height] = [grid.across + 1, grid.down + 1];
  const rows = Math.ceil(maps.length / columns), across = Math.min(maps.length, columns) * width;
  const values = new Float64Array(across * rows * height);
  maps.forEach((map, number) => {
    const first = Math.floor(number / columns) * height * across + (number % columns) * width;
    map.forEach((value, i) => {
      const place = first + Math.floor(i / grid.across) * across + (i % grid.across);
      values[place] = scales[number] > 0 ? value / scales[number] : 0;
    });
  });
  paint(canvas, values, across, 1);
  canvas.style.height = `${(rows * THUMBNAIL * height) / Math.max(width, height)}px`;
}

// A number with so many digits, and never "minus zero".
function digits(value, count) {
  const text = value.toFixed(count);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}
const percent = (value) => `${digits(100 * value, 1)}\u00a0%`;
const plain = (value) => digits(value, data.decimals);
const signed = (value) => (plain(value).startsWith("\u2212") ? "" : "+") + plain(value);
const sum = (values) => values.reduce((total, value) => total + value, 0);

function subscript(value) {
  return String(value).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
}
