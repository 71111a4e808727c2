/** A cloud of points that turns, and follows the hand. data: {points: [x, y, z, ...], colours: ["#rgb", ...] | null} */
const views = new WeakMap();
const SPEED = 0.006;
const DISTANCE = 3.2;

function start(root) {
  const canvas = root.querySelector("canvas");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const view = { calls: 0, points: [], colours: null, turn: 0.6, tilt: 0.35, held: null, frame: 0 };

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    view.held = [event.clientX, event.clientY];
  };
  canvas.onpointerup = canvas.onpointercancel = () => (view.held = null);
  canvas.onpointermove = (event) => {
    if (!view.held) return;
    view.turn += (event.clientX - view.held[0]) * 0.01;
    view.tilt = Math.max(-1.5, Math.min(1.5, view.tilt + (event.clientY - view.held[1]) * 0.01));
    view.held = [event.clientX, event.clientY];
  };

  const draw = () => {
    const { width, height } = canvas.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    if (!view.held && !still) view.turn += SPEED;
    paint(canvas, view, scale);
    canvas.dataset.turn = view.turn.toFixed(3);
    view.frame = requestAnimationFrame(draw);
  };
  view.frame = requestAnimationFrame(draw);
  view.stop = () => cancelAnimationFrame(view.frame);
  return view;
}

function paint(canvas, view, scale) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const size = Math.min(canvas.width, canvas.height) * 0.4;
  const [cos, sin, up, side] = [Math.cos(view.turn), Math.sin(view.turn), Math.cos(view.tilt), Math.sin(view.tilt)];
  const own = getComputedStyle(canvas).color;
  const seen = [];
  for (let i = 0; i < view.points.length; i += 3) {
    const [x, y, z] = [view.points[i], view.points[i + 1], view.points[i + 2]];
    const across = cos * x + sin * y;
    const into = cos * y - sin * x;
    seen.push([up * into - side * z, across, up * z + side * into, i / 3]);
  }
  seen.sort((a, b) => b[0] - a[0]);
  for (const [depth, across, height, index] of seen) {
    const near = DISTANCE / (DISTANCE + depth);
    pen.globalAlpha = Math.max(0.15, Math.min(1, 0.75 - depth * 0.45));
    pen.fillStyle = view.colours ? view.colours[index] : own;
    const dot = 1.6 * scale * near;
    pen.fillRect(canvas.width / 2 + across * size * near, canvas.height / 2 - height * size * near, dot, dot);
  }
}

export default function ({ parentElement, data }) {
  let view = views.get(parentElement);
  if (!view) views.set(parentElement, (view = start(parentElement)));
  view.points = data.points;
  view.colours = data.colours;
  const call = ++view.calls;
  return () => {
    if (call !== view.calls) return;
    view.stop();
    views.delete(parentElement);
  };
}
