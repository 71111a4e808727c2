/** How each kind of value looks: a colour for light and dark, a shape, and its name in text. */
export interface Look {
  light: string;
  dark: string;
  path: string;
}

const SHAPES = {
  circle: "M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12z",
  square: "M2.5 2.5h11v11h-11z",
  diamond: "M8 1l7 7l-7 7l-7-7z",
  triangle: "M2.5 2l12 6l-12 6z",
  hexagon: "M4.5 2h7l3.5 6l-3.5 6h-7l-3.5-6z",
  bar: "M5 1.5h6v13h-6z",
  ring: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13zm0 3.6a2.9 2.9 0 1 1 0 5.8a2.9 2.9 0 1 1 0-5.8z",
  plus: "M6 1.5h4v4.500h4.500v4h-4.500v4.500h-4v-4.500h-4.500v-4h4.500z",
  film: "M1.500 4h13v8h-13zM3 2h2v1.200h-2zM7 2h2v1.200h-2zM11 2h2v1.200h-2zM3 12.800h2v1.200h-2zM7 12.800h2v1.200h-2zM11 12.800h2v1.200h-2z",
  pentagon: "M8 1.500l7 5l-2.700 8h-8.600l-2.700-8z",
  bowtie: "M2 2.500l6 4l6-4v11l-6-4l-6 4z",
  star: "M8 1l2 4.700l5 .5l-3.800 3.400l1.200 5.100l-4.400-2.700l-4.400 2.700l1.200-5.100l-3.800-3.400l5-.5z",
} as const;

export const KINDS: Record<string, Look> = {
  image: { light: "#1c7ed6", dark: "#4dabf7", path: SHAPES.square },
  video: { light: "#1864ab", dark: "#74c0fc", path: SHAPES.film },
  waveform: { light: "#e8590c", dark: "#ff922b", path: SHAPES.triangle },
  features: { light: "#b07800", dark: "#fcc419", path: SHAPES.bowtie },
  points: { light: "#0c8599", dark: "#3bc9db", path: SHAPES.hexagon },
  expression: { light: "#2f9e44", dark: "#69db7c", path: SHAPES.pentagon },
  tokens: { light: "#7048e8", dark: "#b197fc", path: SHAPES.circle },
  embedding: { light: "#ae3ec9", dark: "#e599f7", path: SHAPES.diamond },
  text: { light: "#495057", dark: "#ced4da", path: SHAPES.bar },
  logits: { light: "#c2255c", dark: "#faa2c1", path: SHAPES.ring },
  latent: { light: "#5c940d", dark: "#a9e34b", path: SHAPES.plus },
};

const UNKNOWN: Look = { light: "#868e96", dark: "#adb5bd", path: SHAPES.star };

export function lookOf(kind: string | null | undefined): Look {
  return (kind && KINDS[kind]) || UNKNOWN;
}

/** The colour of a kind, in whichever theme the page has. */
export function colourOf(kind: string | null | undefined): string {
  const look = lookOf(kind);
  return `light-dark(${look.light}, ${look.dark})`;
}
