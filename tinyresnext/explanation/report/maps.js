// Maps: decoded from the page's data, computed with, and drawn.

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
      return Float64Array.from(decoded().subarray(start, start + size), (v) => v * packed.scales[group]);
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

// Orange is above zero and blue below; the paler, the nearer to zero. Both are seen on white and on black.
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

// One canvas with many maps side by side, a column of nothing between them.
function strip(canvas, grid, maps, most) {
  const width = maps.length * (grid.across + 1);
  const values = new Float64Array(width * grid.down);
  maps.forEach((map, number) => {
    map.forEach((value, i) => {
      const row = Math.floor(i / grid.across), column = i % grid.across;
      values[row * width + number * (grid.across + 1) + column] = value;
    });
  });
  paint(canvas, values, width, most);
}
