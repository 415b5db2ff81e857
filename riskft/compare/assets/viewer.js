"use strict";
// Shows three orthogonal planes of a case: grey image, map overlay, border of the label. Volumes are RAS, z fastest.
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const root = document.getElementById("viewer");
  if (!root || !data.cases.length) return;
  const LONGEST = 340; // pixels of the longest edge in mm
  const AXES = ["sagittal", "coronal", "axial"];
  const LETTERS = ["x", "y", "z"];
  const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const [caseList, mapList, opacity, border, readout, legend] =
    ["case", "map", "opacity", "border", "readout", "legend"].map(find);
  const planes = AXES.map((name, axis) => {
    const [across, up] = [0, 1, 2].filter((other) => other !== axis);
    const canvas = find(name);
    return { axis, across, up, canvas, slider: find(`${name}-slider`), value: find(`${name}-value`), small: document.createElement("canvas") };
  });
  let shown = null; // the case with its volumes as bytes
  let at = [0, 0, 0];

  const index = ([x, y, z]) => (x * shown.shape[1] + y) * shown.shape[2] + z;
  // the subject's left is on the right; in the sagittal plane anterior is on the right
  const mirrored = (plane) => plane.axis !== 0;
  const column = (plane, voxel) => (mirrored(plane) ? shown.shape[plane.across] - 1 - voxel : voxel);
  const row = (plane, voxel) => shown.shape[plane.up] - 1 - voxel;

  function open(number) {
    const given = data.cases[number];
    shown = {
      ...given,
      image: decode(given.image),
      label: decode(given.label),
      maps: given.maps.map((map) => ({ ...map, data: decode(map.data) })),
    };
    const chosen = Math.max(mapList.selectedIndex, 0);
    mapList.replaceChildren(...shown.maps.map((map) => new Option(map.name)));
    mapList.selectedIndex = Math.min(chosen, shown.maps.length - 1);
    at = middle();
    const millimetres = shown.shape.map((size, axis) => size * shown.spacing[axis]);
    const scale = LONGEST / Math.max(...millimetres);
    for (const plane of planes) {
      plane.canvas.width = Math.round(millimetres[plane.across] * scale);
      plane.canvas.height = Math.round(millimetres[plane.up] * scale);
      plane.small.width = shown.shape[plane.across];
      plane.small.height = shown.shape[plane.up];
      plane.slider.max = shown.shape[plane.axis] - 1;
    }
    draw();
  }

  // start at the centre of the label, if there is one
  function middle() {
    const sum = [0, 0, 0];
    let count = 0;
    const [, ny, nz] = shown.shape;
    shown.label.forEach((value, place) => {
      if (value === 0 || value === 255) return;
      count += 1;
      sum[0] += Math.floor(place / (ny * nz));
      sum[1] += Math.floor(place / nz) % ny;
      sum[2] += place % nz;
    });
    return shown.shape.map((size, axis) => (count ? Math.round(sum[axis] / count) : Math.floor(size / 2)));
  }

  function isBorder(plane, voxel, value) {
    if (value === 0 || value === 255) return false;
    for (const axis of [plane.across, plane.up]) {
      for (const step of [-1, 1]) {
        const next = [...voxel];
        next[axis] += step;
        if (next[axis] < 0 || next[axis] >= shown.shape[axis] || shown.label[index(next)] !== value) return true;
      }
    }
    return false;
  }

  function drawPlane(plane) {
    const { small, canvas, across, up, axis } = plane;
    const context = small.getContext("2d");
    const pixels = context.createImageData(small.width, small.height);
    const map = shown.maps[mapList.selectedIndex];
    const share = Number(opacity.value) / 100;
    const voxel = [0, 0, 0];
    voxel[axis] = at[axis];
    for (voxel[across] = 0; voxel[across] < shown.shape[across]; voxel[across] += 1) {
      for (voxel[up] = 0; voxel[up] < shown.shape[up]; voxel[up] += 1) {
        const from = index(voxel);
        const to = 4 * (row(plane, voxel[up]) * small.width + column(plane, voxel[across]));
        const heat = map.data[from];
        const part = share * Math.min(1, heat / 64); // low risk is transparent
        let colour = data.colours[heat].map((value) => value * part + shown.image[from] * (1 - part));
        if (border.checked && isBorder(plane, voxel, shown.label[from])) {
          colour = data.classColours[shown.label[from] % data.classColours.length];
        }
        pixels.data.set([...colour, 255], to);
      }
    }
    context.putImageData(pixels, 0, 0);
    const large = canvas.getContext("2d");
    large.imageSmoothingEnabled = false;
    large.drawImage(small, 0, 0, canvas.width, canvas.height);
    large.strokeStyle = "rgba(120, 220, 255, 0.75)";
    large.lineWidth = 1;
    const x = ((column(plane, at[across]) + 0.5) * canvas.width) / small.width;
    const y = ((row(plane, at[up]) + 0.5) * canvas.height) / small.height;
    large.beginPath();
    large.moveTo(x, 0);
    large.lineTo(x, canvas.height);
    large.moveTo(0, y);
    large.lineTo(canvas.width, y);
    large.stroke();
    plane.slider.value = at[axis];
    plane.value.textContent = at[axis];
  }

  function draw() {
    planes.forEach(drawPlane);
    const here = index(at);
    const values = shown.maps.map((map) => `${map.name} ${(map.low + (map.data[here] / 255) * (map.high - map.low)).toFixed(2)}`);
    const label = shown.label[here];
    const name = label === 255 ? "ignored" : shown.classes[label] ?? `class ${label}`;
    readout.textContent = `${LETTERS.map((letter, axis) => `${letter} ${at[axis]}`).join(", ")}: ${values.join(", ")}, label ${name}`;
    const map = shown.maps[mapList.selectedIndex];
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.style.background = `linear-gradient(to right, ${[0, 64, 128, 192, 255].map((value) => `rgb(${data.colours[value]})`)})`;
    legend.replaceChildren(map.low.toFixed(2), bar, map.high.toFixed(2), ...shown.classes.slice(1).map((text, number) => {
      const entry = document.createElement("span");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = `rgb(${data.classColours[(number + 1) % data.classColours.length]})`;
      entry.append(swatch, text);
      return entry;
    }));
  }

  function move(axis, voxel) {
    at[axis] = Math.min(Math.max(voxel, 0), shown.shape[axis] - 1);
  }

  for (const plane of planes) {
    const { canvas, axis, across, up, slider } = plane;
    slider.addEventListener("input", () => { move(axis, Number(slider.value)); draw(); });
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      const right = Math.floor(((event.clientX - box.left) / box.width) * shown.shape[across]);
      const down = Math.floor(((event.clientY - box.top) / box.height) * shown.shape[up]);
      move(across, mirrored(plane) ? shown.shape[across] - 1 - right : right);
      move(up, shown.shape[up] - 1 - down);
      draw();
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); point(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); move(axis, at[axis] - Math.sign(event.deltaY)); draw(); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const right = mirrored(plane) ? -1 : 1;
      const steps = {
        ArrowRight: [across, right], ArrowLeft: [across, -right], ArrowUp: [up, 1], ArrowDown: [up, -1],
        PageUp: [axis, 1], PageDown: [axis, -1],
      };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const [along, step] = steps[event.key];
      move(along, at[along] + step);
      draw();
    });
  }
  caseList.replaceChildren(...data.cases.map((item) => new Option(item.title)));
  caseList.addEventListener("change", () => open(caseList.selectedIndex));
  for (const control of [mapList, border, opacity]) control.addEventListener("input", draw);
  open(0);
})();
