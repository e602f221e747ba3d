// Charts in SVG: lines over frames, dots of one number against another, parallel coordinates. Text enters the page as text
// nodes alone, never as markup.
'use strict';

/** An element with attributes and children; a child that is no element becomes text, null is left out. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') node.addEventListener(name, value);
    else if (name === 'style') node.style.cssText = value;
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined));
  return node;
}

/** A number as people read it. */
function text(x) {
  if (x === null || x === undefined) return '\u2013';
  if (typeof x !== 'number') return typeof x === 'string' ? x : JSON.stringify(x);
  if (!Number.isFinite(x)) return '\u2013';
  const size = Math.abs(x);
  const plain = Number.isInteger(x) ? x.toLocaleString('en') : size >= 1e-3 ? String(+x.toPrecision(4)) : x.toExponential(2);
  return plain.replace('-', '\u2212');
}

/** A short label of a tick. */
function tickText(x, largest) {
  const [unit, letter] = largest >= 1e9 ? [1e9, 'G'] : largest >= 1e6 ? [1e6, 'M'] : largest >= 1e4 ? [1e3, 'k'] : [1, ''];
  const y = x / unit;
  if (y === 0) return '0';
  const plain = Math.abs(y) < 1e-3 ? Number(y.toPrecision(3)).toExponential() : String(+y.toPrecision(4));
  return (plain + letter).replace('-', '\u2212');
}

const colour = (i) => `var(--c${i % 8})`;

/** The colour of a share from 0 (weakest) to 1 (strongest). */
function strengthColour(share) {
  if (share === null) return 'var(--none)';
  const [from, to, t] = share < 0.5 ? ['--s0', '--s1', share * 2] : ['--s1', '--s2', share * 2 - 1];
  return `color-mix(in srgb, var(${from}), var(${to}) ${(t * 100).toFixed(1)}%)`;
}

const isNumber = (x) => typeof x === 'number' && Number.isFinite(x);

/** Round numbers between two. */
function ticks(low, high, count) {
  const base = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * base).find((s) => (high - low) / s <= count) || high - low;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

/** An axis for values: names, logarithmic or linear. `place` gives a share from 0 to 1, or null. */
function axisOf(values, { tight = false, count = 5 } = {}) {
  const known = values.filter((v) => v !== null && v !== undefined);
  if (known.some((v) => !isNumber(v))) {
    const names = [...new Set(known.map(text))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
    const place = (v, jitter = 0) => {
      const i = names.indexOf(text(v));
      return i < 0 ? null : (i + 0.5 + 0.3 * jitter) / names.length;
    };
    return { place, marks: names.map((name, i) => [(i + 0.5) / names.length, name]) };
  }
  let low = Infinity, high = -Infinity;
  for (const v of known) { low = Math.min(low, v); high = Math.max(high, v); }
  if (low > high) [low, high] = [0, 1];
  if (!tight && low > 0 && high >= 30 * low) {
    const [a, b] = [Math.log10(low), Math.log10(high)];
    const pad = 0.04 * (b - a);
    const share = (v) => (Math.log10(v) - a + pad) / (b - a + 2 * pad);
    const powers = [];
    for (let p = Math.floor(a); p <= Math.ceil(b); p++) for (const f of b - a > 1.8 ? [1] : [1, 3]) powers.push(f * 10 ** p);
    const inside = powers.filter((v) => share(v) >= 0 && share(v) <= 1);
    return { place: (v) => (isNumber(v) && v > 0 ? share(v) : null), marks: inside.map((v) => [share(v), tickText(v, 1)]) };
  }
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high), 1e-9)) {
    const half = low === 0 ? 1 : 0.1 * Math.abs(low);
    [low, high] = [low - half, high + half];
  }
  const pad = tight ? 0 : 0.05 * (high - low);
  [low, high] = [low - pad, high + pad];
  const share = (v) => (v - low) / (high - low);
  const largest = Math.max(Math.abs(low), Math.abs(high));
  return {
    low, high,
    place: (v) => (isNumber(v) ? share(v) : null),
    marks: ticks(low, high, count).map((v) => [share(v), tickText(v, largest)]),
  };
}

/** What a person did to a chart (zoom, hidden series, sorting), kept when the page is drawn again. */
const kept = new Map();
function keep(id, initial) {
  if (!kept.has(id)) kept.set(id, initial);
  return kept.get(id);
}

/** A box with an SVG that is drawn at its real width, again whenever that changes. */
function chartBox(height, label, draw) {
  const box = el('div', { class: 'chart' });
  const picture = svg('svg', { height, role: 'img', 'aria-label': label });
  const tip = el('div', { class: 'tip', hidden: '' });
  box.append(picture, tip);
  let width = 0;
  const again = () => { if (width > 0) { picture.setAttribute('viewBox', `0 0 ${width} ${height}`); draw(picture, width, height); } };
  new ResizeObserver(() => {
    if (Math.abs(box.clientWidth - width) >= 1) { width = box.clientWidth; again(); }
  }).observe(box);
  const showTip = (x, y, ...lines) => {
    tip.replaceChildren(...lines);
    tip.hidden = false;
    tip.style.left = x > width / 2 ? '' : `${x + 14}px`;
    tip.style.right = x > width / 2 ? `${width - x + 14}px` : '';
    tip.style.top = `${Math.max(0, y - 20)}px`;
  };
  return { box, again, showTip, hideTip: () => { tip.hidden = true; }, at: (event) => {
    const corner = picture.getBoundingClientRect();
    return [event.clientX - corner.left, event.clientY - corner.top];
  } };
}

/** Grid, frame and labels; `x` and `y` are axes. */
function frame(picture, [left, right, top, bottom], x, y, xLabel) {
  const clash = (marks, size) => Math.max(1, Math.ceil((marks.length * size) / (right - left)));
  const every = clash(x.marks, 7 * Math.max(4, ...x.marks.map(([, t]) => Math.min(t.length, 12))));
  x.marks.forEach(([share, label], i) => {
    const at = left + share * (right - left);
    picture.append(svg('line', { class: 'grid-line', x1: at, x2: at, y1: top, y2: bottom }));
    if (i % every === 0) picture.append(svg('text', { x: at, y: bottom + 16, 'text-anchor': 'middle' }, label.slice(0, 14)));
  });
  for (const [share, label] of y.marks) {
    const at = bottom - share * (bottom - top);
    picture.append(svg('line', { class: 'grid-line', x1: left, x2: right, y1: at, y2: at }));
    picture.append(svg('text', { x: left - 6, y: at + 4, 'text-anchor': 'end' }, label));
  }
  picture.append(svg('path', { class: 'axis', d: `M${left} ${top}V${bottom}H${right}` }));
  if (xLabel) picture.append(svg('text', { x: (left + right) / 2, y: bottom + 32, 'text-anchor': 'middle' }, xLabel));
}

/**
 * Lines over x. `series`: `{name, x, y, band?, colour}`. Hover shows the values at x, or with `one` the nearest line alone;
 * a drag zooms, a double click shows everything again.
 */
function lineChart(id, { series, xLabel = 'frames', height = 300, legend = true, one = null, label }) {
  const state = keep(id, { hidden: new Set(), zoom: null });
  let area, xAxis, yAxis, lines, overlay, drag = null;
  const shown = () => series.filter((s) => !state.hidden.has(s.name));
  const px = (v) => area[0] + xAxis.place(v) * (area[1] - area[0]);
  const py = (v) => area[3] - yAxis.place(v) * (area[3] - area[2]);
  const inside = (v) => !state.zoom || (v >= state.zoom[0] && v <= state.zoom[1]);
  const chart = chartBox(height, label, (picture, width) => {
    area = [52, width - 20, 8, height - (xLabel ? 38 : 22)];
    const xs = state.zoom || shown().flatMap((s) => [s.x[0], s.x[s.x.length - 1]]);
    xAxis = axisOf(xs, { tight: true, count: width < 500 ? 4 : 8 });
    const ys = [];
    for (const s of shown()) s.y.forEach((v, i) => {
      if (isNumber(v) && inside(s.x[i])) { const b = s.band ? s.band[i] || 0 : 0; ys.push(v - b, v + b); }
    });
    yAxis = axisOf(ys, { count: height < 200 ? 3 : 5 });
    if (yAxis.low === undefined) yAxis = axisOf([Math.min(...ys), Math.max(...ys)].map((v) => v), { tight: true });
    const clip = `clip-${id}`;
    picture.replaceChildren(svg('clipPath', { id: clip }, svg('rect', { x: area[0], y: area[2] - 4, width: Math.max(0, area[1] - area[0]), height: area[3] - area[2] + 8 })));
    frame(picture, area, xAxis, yAxis, xLabel);
    lines = new Map();
    const group = svg('g', { 'clip-path': `url(#${clip})` });
    for (const s of shown()) {
      let d = '', pen = false, upper = '', lower = [];
      s.y.forEach((v, i) => {
        if (!isNumber(v)) { pen = false; return; }
        const x = px(s.x[i]).toFixed(1);
        d += `${pen ? 'L' : 'M'}${x} ${py(v).toFixed(1)}${pen ? '' : 'h0'}`;
        pen = true;
        if (s.band) { upper += `L${x} ${py(v + (s.band[i] || 0)).toFixed(1)}`; lower.push(`L${x} ${py(v - (s.band[i] || 0)).toFixed(1)}`); }
      });
      if (s.band && upper) group.append(svg('path', { class: 'band', fill: s.colour, style: `fill:${s.colour}`, d: `M${upper.slice(1)}${lower.reverse().join('')}Z` }));
      const line = svg('path', { class: 'line', style: `stroke:${s.colour}`, 'stroke-linecap': 'round', d });
      lines.set(s, line);
      group.append(line);
    }
    overlay = svg('g');
    picture.append(group, overlay);
    if (!ys.length) picture.append(svg('text', { x: (area[0] + area[1]) / 2, y: (area[2] + area[3]) / 2, 'text-anchor': 'middle' }, 'no data yet'));
  });
  const nearest = (s, x) => {
    let a = 0, b = s.x.length - 1;
    while (b - a > 1) { const m = (a + b) >> 1; if (s.x[m] < x) a = m; else b = m; }
    return Math.abs(s.x[a] - x) <= Math.abs(s.x[b] - x) ? a : b;
  };
  const back = (at) => {
    const share = (at - area[0]) / (area[1] - area[0]);
    return xAxis.low + share * (xAxis.high - xAxis.low);
  };
  const cool = () => { if (lines) for (const line of lines.values()) line.classList.remove('hot'); };
  const leave = () => { chart.hideTip(); cool(); if (overlay) overlay.replaceChildren(); };
  chart.box.addEventListener('pointermove', (event) => {
    if (!area) return;
    const [mx, my] = chart.at(event);
    if (drag !== null) {
      overlay.replaceChildren(svg('rect', { class: 'zoom', x: Math.min(mx, drag), width: Math.abs(mx - drag), y: area[2], height: area[3] - area[2] }));
      return;
    }
    if (mx < area[0] || mx > area[1] || my > area[3] + 8) return leave();
    const x = back(mx);
    let found = shown().filter((s) => s.x.length).map((s) => [s, nearest(s, x)]).filter(([s, i]) => isNumber(s.y[i]));
    if (!found.length) return leave();
    cool();
    if (one) {
      const far = ([s, i]) => Math.hypot((px(s.x[i]) - mx) / 3, py(s.y[i]) - my);
      found = [found.reduce((a, b) => (far(b) < far(a) ? b : a))];
      const line = lines.get(found[0][0]);
      line.classList.add('hot');
      line.parentNode.append(line);
    }
    const at = px(found[0][0].x[found[0][1]]);
    overlay.replaceChildren(svg('line', { class: 'cursor', x1: at, x2: at, y1: area[2], y2: area[3] }),
      ...found.map(([s, i]) => svg('circle', { r: 3.5, cx: px(s.x[i]), cy: py(s.y[i]), style: `fill:${s.colour}` })));
    const line = ([s, i]) => el('div', {}, el('i', { style: `background:${s.colour}` }), `${s.name}: ${text(s.y[i])}${s.band ? ` \u00b1 ${text(s.band[i])}` : ''}`);
    chart.showTip(mx, my, el('div', {}, `${xLabel || 'frame'} ${text(found[0][0].x[found[0][1]])}`), ...found.slice(0, 12).map(line), ...(one ? one(found[0][0]) : []));
  });
  chart.box.addEventListener('pointerleave', leave);
  chart.box.addEventListener('pointerdown', (event) => {
    const [mx] = chart.at(event);
    if (area && event.pointerType === 'mouse' && mx >= area[0] && mx <= area[1]) { drag = mx; chart.box.setPointerCapture(event.pointerId); chart.hideTip(); }
  });
  chart.box.addEventListener('pointerup', (event) => {
    if (drag === null) return;
    const [from, to] = [drag, chart.at(event)[0]].sort((a, b) => a - b).map((v) => Math.min(Math.max(v, area[0]), area[1]));
    drag = null;
    if (to - from > 6) state.zoom = [back(from), back(to)];
    overlay.replaceChildren();
    chart.again();
  });
  chart.box.addEventListener('dblclick', () => { state.zoom = null; chart.again(); });
  const out = el('div', {}, chart.box);
  if (legend && series.length > 1) {
    out.append(el('div', { class: 'legend' }, series.map((s) => el('button', {
      type: 'button', 'aria-pressed': String(!state.hidden.has(s.name)), click: (event) => {
        if (!state.hidden.delete(s.name)) state.hidden.add(s.name);
        event.currentTarget.setAttribute('aria-pressed', String(!state.hidden.has(s.name)));
        chart.again();
      },
    }, el('i', { style: `background:${s.colour}` }), s.name))));
  }
  return { node: out, set: (next) => { series = next; chart.again(); } };
}

/** Dots. `dots`: `{x, y, colour, jitter, lines, open}`. */
function scatterChart({ height = 340, label }) {
  let dots = [], xLabel = '', placed = [];
  const chart = chartBox(height, label, (picture, width) => {
    const area = [58, width - 20, 8, height - 40];
    const x = axisOf(dots.map((d) => d.x), { count: width < 500 ? 4 : 7 });
    const y = axisOf(dots.map((d) => d.y));
    picture.replaceChildren();
    frame(picture, area, x, y, xLabel);
    placed = dots.map((d) => [d, x.place(d.x, d.jitter), y.place(d.y, d.jitter)]).filter(([, a, b]) => a !== null && b !== null)
      .map(([d, a, b]) => [d, area[0] + a * (area[1] - area[0]), area[3] - b * (area[3] - area[2])]);
    for (const [d, cx, cy] of placed) picture.append(svg('circle', { class: 'dot', r: 5, cx, cy, style: `fill:${d.colour}` }));
  });
  const near = (event) => {
    const [mx, my] = chart.at(event);
    const far = ([, x, y]) => Math.hypot(x - mx, y - my);
    const best = placed.length ? placed.reduce((a, b) => (far(b) < far(a) ? b : a)) : null;
    return best && far(best) < 24 ? best : null;
  };
  chart.box.addEventListener('pointermove', (event) => {
    const found = near(event);
    if (found) chart.showTip(found[1], found[2], ...found[0].lines()); else chart.hideTip();
    chart.box.style.cursor = found && found[0].open ? 'pointer' : '';
  });
  chart.box.addEventListener('pointerleave', chart.hideTip);
  chart.box.addEventListener('click', (event) => { const found = near(event); if (found && found[0].open) found[0].open(); });
  return { node: chart.box, set: (next, name) => { dots = next; xLabel = name; chart.again(); } };
}

/** One line per row through its place on every axis. `rows`: `{values, colour, jitter, lines}`. */
function parallelChart({ names, rows, height = 360, label }) {
  const axes = names.map((_, i) => axisOf(rows.map((row) => row.values[i])));
  let ways = [];
  const chart = chartBox(height, label, (picture, width) => {
    const [left, right, top, bottom] = [46, width - 46, 46, height - 12];
    const at = (i) => left + ((right - left) * i) / Math.max(1, names.length - 1);
    const letters = Math.max(4, Math.floor((right - left) / Math.max(1, names.length - 1) / 6.6));
    picture.replaceChildren();
    ways = rows.map((row) => {
      const points = axes.map((axis, i) => [at(i), axis.place(row.values[i], row.jitter)]).filter(([, share]) => share !== null)
        .map(([x, share]) => [x, bottom - share * (bottom - top)]);
      const line = svg('path', { class: 'line', style: `stroke:${row.colour}`, d: points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('') });
      picture.append(line);
      return [row, points, line];
    });
    names.forEach((name, i) => {
      picture.append(svg('path', { class: 'axis', d: `M${at(i)} ${top}V${bottom}` }));
      const short = name.length > letters ? `\u2026${name.slice(1 - letters)}` : name;
      const anchor = i === 0 ? 'start' : i === names.length - 1 ? 'end' : 'middle';
      picture.append(svg('text', { x: i === 0 ? 2 : i === names.length - 1 ? width - 2 : at(i), y: i % 2 ? 14 : 32, 'text-anchor': anchor }, svg('title', {}, name), short));
      for (const [share, mark] of axes[i].marks) picture.append(svg('text', { class: 'above', x: at(i) + 4, y: bottom - share * (bottom - top) + 4 }, mark.slice(0, letters)));
    });
  });
  const cool = () => { for (const [, , line] of ways) line.classList.remove('hot'); };
  chart.box.addEventListener('pointermove', (event) => {
    const [mx, my] = chart.at(event);
    const far = ([, points]) => Math.min(Infinity, ...points.slice(1).map(([bx, by], i) => {
      const [ax, ay] = points[i];
      return mx < ax || mx > bx ? Infinity : Math.abs(ay + ((by - ay) * (mx - ax)) / (bx - ax || 1) - my);
    }));
    cool();
    const best = ways.length ? ways.reduce((a, b) => (far(b) < far(a) ? b : a)) : null;
    if (!best || far(best) > 14) return chart.hideTip();
    best[2].classList.add('hot');
    chart.showTip(mx, my, ...best[0].lines());
  });
  chart.box.addEventListener('pointerleave', () => { chart.hideTip(); cool(); });
  return { node: chart.box };
}

/** A table whose columns sort by a click. `columns`: `{name, value(row), cell?(row), isText?}`. */
function sortTable(id, columns, rows, first) {
  const state = keep(id, { by: first, down: true });
  const body = el('tbody');
  const heads = columns.map((column) => el('th', { scope: 'col', class: column.isText ? 'text' : null }, el('button', {
    type: 'button', click: () => {
      [state.by, state.down] = [column.name, state.by === column.name ? !state.down : !column.isText];
      draw();
    },
  }, column.name)));
  const draw = () => {
    const column = columns.find((c) => c.name === state.by) || columns[0];
    const missing = (v) => v === null || v === undefined || v === '';
    const order = (a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const up = isNumber(x) && isNumber(y) ? x - y : text(x).localeCompare(text(y), 'en', { numeric: true });
      return state.down ? -up : up;
    };
    heads.forEach((head, i) => {
      if (columns[i] === column) head.setAttribute('aria-sort', state.down ? 'descending' : 'ascending'); else head.removeAttribute('aria-sort');
    });
    body.replaceChildren(...[...rows].sort(order).map((row) => el('tr', {}, columns.map((c) => el('td', { class: c.isText ? 'text' : null, 'data-value': missing(c.value(row)) ? '' : c.value(row) }, c.cell ? c.cell(row) : text(c.value(row)))))));
  };
  draw();
  return el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr', {}, heads)), body));
}

/** Buttons of which one is pressed. */
function choice(id, options, chosen) {
  const state = keep(id, { value: options[0] });
  const buttons = options.map((option) => el('button', {
    type: 'button', 'aria-pressed': String(option === state.value), click: () => {
      state.value = option;
      buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(options[i] === option)));
      chosen(option);
    },
  }, option));
  return [state.value, buttons];
}

/** A list of which one is chosen. */
function select(id, label, options, initial, chosen) {
  const state = keep(id, { value: initial });
  if (!options.includes(state.value)) state.value = options[0];
  const node = el('select', { 'aria-label': label, change: () => { state.value = node.value; chosen(); } },
    options.map((option) => el('option', { value: option, selected: option === state.value ? '' : null }, option)));
  return [() => state.value, node];
}
