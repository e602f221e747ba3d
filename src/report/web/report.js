// The pages of a trial and of an experiment, made from the data that the program embeds or serves.
'use strict';

const METRICS = ['total_reward_ma', 'strength', 'max_strength', 'final_strength', 'sample_efficiency', 'training_efficiency', 'stability', 'consistency'];

const CLOCKS = ['t', 'epi', 'opt_step', 'fps', 'wall_t'];

const card = (title, tools, ...inside) => el('section', { class: 'card' },
  el('div', { class: 'head' }, el('h2', {}, title), el('span', { class: 'space' }), tools || []), inside);
const tile = (name, value) => el('div', { class: 'tile' }, el('span', {}, name), el('b', {}, typeof value === 'number' || value === null ? text(value) : value));
const chips = (list) => el('div', { class: 'chips' }, list.filter(([t]) => t).map(([t, kind]) => el('span', { class: `chip ${kind || ''}` }, t)));
/** A table that may repeat one number for a whole column. */
const column = (c, n) => (Array.isArray(c) ? c : c === undefined ? [] : new Array(n).fill(c.every));
const hint = (t) => el('p', { class: 'hint' }, t);

function provenance(data) {
  const rows = [['seed', data.seed], ['commit of the working folder', data.git_sha ? data.git_sha + (data.git_dirty ? ' (with changes)' : '') : null], ...Object.entries(data.facts || {})];
  const known = rows.filter(([, value]) => value !== null && value !== undefined && value !== '');
  const value = (name, v) => (name === 'memory_bytes' ? `${(v / 2 ** 30).toFixed(1)} GiB` : name === 'seed' ? String(v) : text(v));
  return card('Provenance', null, el('dl', {}, known.map(([name, v]) => [el('dt', {}, name.replaceAll('_', ' ')), el('dd', {}, value(name, v))])));
}

function specCard(data) {
  const state = keep('spec', { open: false });
  const node = el('details', { open: state.open ? '' : null, toggle: () => { state.open = node.open; } },
    el('summary', {}, 'Spec'), el('pre', {}, JSON.stringify(data.spec, null, 2)));
  return el('section', { class: 'card' }, node);
}

function meanSeries(sessions, name, label) {
  const longest = sessions.reduce((a, b) => (b.frame.length > a.frame.length ? b : a), sessions[0]);
  const y = [], band = [];
  longest.frame.forEach((_, i) => {
    const values = sessions.map((s) => s[name][i]).filter(isNumber);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    y.push(values.length ? mean : null);
    band.push(values.length > 1 ? Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (values.length - 1)) : 0);
  });
  return { name: label, x: longest.frame, y, band, colour: colour(0) };
}

/** The page of a trial; `extra` are cards of the live view. */
function trialPage(root, data, extra = []) {
  const sessions = data.sessions.map((s) => ({ index: s.session, frame: s.frame, total_reward: column(s.total_reward, s.frame.length), total_reward_ma: column(s.total_reward_ma, s.frame.length) }));
  const id = `t${data.trial}`;
  // until the trial has ended: the mean over its sessions as they are
  const soFar = (name) => {
    const values = data.sessions.map((s) => s.metrics && s.metrics[name]).filter(isNumber);
    return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
  };
  const metrics = data.metrics || Object.fromEntries(METRICS.map((name) => [name, soFar(name)]));
  let chart;
  const series = (which, how) => {
    const name = which === 'raw' ? 'total_reward' : 'total_reward_ma';
    if (!sessions.length) return [];
    if (how === 'mean \u00b1 std') return [meanSeries(sessions, name, `mean of ${sessions.length}`)];
    return sessions.map((s, i) => ({ name: `session ${s.index}`, x: s.frame, y: s[name], colour: colour(i) }));
  };
  const now = {};
  const redraw = () => chart.set(series(now.which, now.how));
  const [which, whichButtons] = choice(`${id}-which`, ['raw', 'moving average'], (v) => { now.which = v; redraw(); });
  const [how, howButtons] = choice(`${id}-how`, ['sessions', 'mean \u00b1 std'], (v) => { now.how = v; redraw(); });
  [now.which, now.how] = [which, how];
  chart = lineChart(`${id}-return`, { series: series(which, how), label: 'Return over frames', height: 320 });
  const all = [...new Set(data.sessions.flatMap((s) => Object.keys(s.columns)))];
  // a column that is one number in every session is told, not drawn; counters and clocks come last
  const single = (name) => {
    const values = new Set(data.sessions.map((s) => s.columns[name]).map((c) => (c && !Array.isArray(c) ? c.every : NaN)));
    return values.size === 1 && isNumber([...values][0]) ? [...values][0] : null;
  };
  const constant = all.filter((name) => single(name) !== null);
  const varying = all.filter((name) => single(name) === null);
  const others = [...varying.filter((name) => !CLOCKS.includes(name)), ...varying.filter((name) => CLOCKS.includes(name))];
  const small = others.map((name) => {
    const lines = data.sessions.filter((s) => s.columns[name] !== undefined).map((s) => {
      const x = s.columns_frame;
      return { name: `session ${s.session}`, x, y: column(s.columns[name], x.length), colour: colour(data.sessions.indexOf(s)) };
    });
    return card(name, null, lineChart(`${id}-${name}`, { series: lines, label: `${name} over frames`, height: 170, legend: false, xLabel: '' }).node);
  });
  const per = (name) => ({ name, value: (s) => (s.metrics ? s.metrics[name] : null) });
  const table = sortTable(`${id}-sessions`, [{ name: 'session', value: (s) => s.session }, { name: 'frame', value: (s) => s.frame[s.frame.length - 1] }, ...METRICS.slice(0, -1).map(per)], data.sessions, 'strength');
  const values = Object.entries(data.searched || {}).map(([key, value]) => [`${key} = ${text(value)}`]);
  root.replaceChildren(
    el('h1', {}, data.experiment_report ? el('a', { href: data.experiment_report }, data.spec_name) : data.spec_name, ` \u00b7 trial ${data.trial}`),
    chips([[data.state, data.state], [data.env], [data.algorithm], [data.device], [`${data.sessions.length} sessions`], [data.max_frame ? `${text(data.max_frame)} frames` : null], ...values]),
    el('div', { class: 'tiles' }, METRICS.map((name) => tile(name, metrics[name] ?? null))),
    card('Return', [...whichButtons, ...howButtons], chart.node, hint('Drag to zoom, double click to see everything; click a session to hide it.')),
    ...extra,
    el('div', { class: 'grid' }, small),
    constant.length ? chips(constant.map((name) => [`${name} = ${text(single(name))}`])) : chips([]),
    card('Sessions', null, table),
    provenance(data), specCard(data),
    hint(`Curves show ${text(data.points)} rows or fewer; info/${data.spec_name}_t${data.trial}_s*_session_df_train.csv has all ${text(data.rows)}.`));
}

/** The page of an experiment. */
function experimentPage(root, data, extra = []) {
  const rows = data.rows.map((row) => ({ ...row, metric: Object.fromEntries(METRICS.map((name, i) => [name, row.metrics[i]])) }));
  const strengths = rows.map((r) => r.metric.strength).filter(isNumber);
  const [low, high] = [Math.min(...strengths), Math.max(...strengths)];
  for (const row of rows) {
    const s = row.metric.strength;
    row.share = isNumber(s) ? (high > low ? (s - low) / (high - low) : 1) : null;
    row.colour = strengthColour(row.share);
    row.jitter = ((row.trial * 0.61803398875) % 1) * 2 - 1;
    row.lines = () => [el('div', {}, el('i', { style: `background:${row.colour}` }), `trial ${row.trial} (${row.status})`),
      el('div', {}, `strength ${text(row.metric.strength)}, total_reward_ma ${text(row.metric.total_reward_ma)}`),
      ...data.variables.map((name, i) => el('div', {}, `${name} = ${text(row.values[i])}`))];
    row.open = row.report ? () => { location.href = row.report; } : null;
  }
  const drawn = [...rows].sort((a, b) => (a.share ?? -1) - (b.share ?? -1));
  const of = (status) => rows.filter((row) => row.status === status).length;
  const best = rows.find((row) => isNumber(row.metric.strength));
  const scale = () => el('span', { class: 'scale' }, el('span', {}, text(strengths.length ? +low.toPrecision(3) : null)), el('i'), el('span', {}, text(strengths.length ? +high.toPrecision(3) : null)), 'strength');

  const byTrial = new Map(data.curves.map((curve) => [curve.trial, curve]));
  const series = (which) => drawn.filter((row) => byTrial.has(row.trial)).map((row) => {
    const curve = byTrial.get(row.trial);
    return { name: `trial ${row.trial}`, x: curve.frame, y: column(which === 'raw' ? curve.total_reward : curve.total_reward_ma, curve.frame.length), colour: row.colour, row };
  });
  let overlay;
  const [which, buttons] = choice('which', ['raw', 'moving average'], (v) => overlay.set(series(v)));
  overlay = lineChart('overlay', { series: series(which), label: 'Mean return of every trial over frames', legend: false, one: (s) => s.row.lines().slice(1), height: 360 });

  const scatter = scatterChart({ label: 'A metric of every trial against a searched variable' });
  const draw = () => {
    const [x, y] = [variable(), metric()];
    const i = data.variables.indexOf(x);
    scatter.set(drawn.map((row) => ({ ...row, x: row.values[i], y: row.metric[y] })), x);
  };
  const [variable, variableSelect] = select('variable', 'variable', data.variables, data.variables[0], () => draw());
  const [metric, metricSelect] = select('metric', 'metric', METRICS, 'strength', () => draw());
  draw();

  const parallel = parallelChart({
    names: [...data.variables, 'strength', 'total_reward_ma'], label: 'Parallel coordinates',
    rows: drawn.map((row) => ({ ...row, values: [...row.values, row.metric.strength, row.metric.total_reward_ma] })),
  });
  const table = sortTable('trials', [
    { name: 'trial', value: (r) => r.trial, cell: (r) => (r.report ? el('a', { href: r.report }, String(r.trial)) : String(r.trial)) },
    { name: 'status', value: (r) => r.status, isText: true }, { name: 'frame', value: (r) => r.frame },
    ...METRICS.map((name) => ({ name, value: (r) => r.metric[name] })),
    ...data.variables.map((name, i) => ({ name, value: (r) => r.values[i], isText: rows.some((r) => typeof r.values[i] === 'string') })),
  ], rows, 'strength');
  root.replaceChildren(
    el('h1', {}, data.spec_name),
    chips([[data.state, data.state], [data.env], [data.algorithm], [data.device], ['search']]),
    el('div', { class: 'tiles' }, tile('trials', data.trials ? `${rows.length} of ${data.trials}` : rows.length), tile('complete', of('complete')), tile('stopped early', of('stopped')), tile('faulted', of('faulted')),
      tile('best strength', best ? best.metric.strength : null), tile('its total_reward_ma', best ? best.metric.total_reward_ma : null)),
    chips(best ? [[`best: trial ${best.trial}`, 'running'], ...data.variables.map((name, i) => [`${name} = ${text(best.values[i])}`])] : []),
    card('All trials', [scale(), ...buttons], overlay.node, hint('Hover for a trial, drag to zoom, double click to see everything.')),
    ...extra,
    card('Metric against variable', [scale(), metricSelect, variableSelect], scatter.node),
    card('Parallel coordinates', [scale()], parallel.node),
    card('Trials', null, table, hint('Click a column to sort by it.')),
    provenance(data), specCard(data));
}

function reportPage(root, data, extra) {
  (data.kind === 'experiment' ? experimentPage : trialPage)(root, data, extra);
}
