/** Finding parts by what a person types: name, alias, family, modality, paper, or a word of what is said of them. */
import type { Catalogue, PartInfo } from "./messages";

const ALIASES: Record<string, string[]> = {
  image: ["vision", "picture", "photo", "cv"],
  audio: ["sound", "speech", "voice", "waveform"],
  causal_lm: ["llm", "gpt", "llama", "language model", "decoder"],
  lora: ["peft", "low rank", "adapter"],
  mlp: ["feed forward", "connector"],
};

function wordsOf(info: PartInfo): string {
  const stem = info.type.split(".")[1] ?? "";
  const aliases = Object.entries(ALIASES).flatMap(([key, words]) => (stem.includes(key) ? words : []));
  return [info.type, info.type.replace(/[._]/g, " "), ...info.modalities, ...aliases].join(" ").toLowerCase();
}

/** How well a part answers a query; 0 is not at all. Every word must be found somewhere. */
export function score(info: PartInfo, query: string): number {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return 1;
  const names = wordsOf(info);
  const [text, more] = [info.summary.toLowerCase(), `${info.doc} ${info.papers.join(" ")}`.toLowerCase()];
  let total = 0;
  for (const word of words) {
    const at = names.indexOf(word);
    if (at >= 0) total += at === 0 || /[\s.]/.test(names[at - 1] ?? "") ? 4 : 2;
    else if (text.includes(word)) total += 1;
    else if (more.includes(word)) total += 0.5;
    else return 0;
  }
  return total;
}

export function search(catalogue: Catalogue, query: string, recent: string[] = [], only?: Set<string>): PartInfo[] {
  const parts = Object.values(catalogue.parts).filter((info) => info.role !== "dataset" && (!only || only.has(info.type)));
  const found = parts.map((info) => {
    const place = recent.indexOf(info.type);
    const points = score(info, query);
    return { info, points: points && points + (place >= 0 ? 1 - place / 20 : 0) };
  });
  return found
    .filter(({ points }) => points > 0)
    .sort((a, b) => b.points - a.points || a.info.type.localeCompare(b.info.type))
    .map(({ info }) => info);
}

export const FAMILIES = ["input", "encoder", "projector", "adapter", "backbone", "head", "objective"];

export function familyTitle(family: string): string {
  return family === "adapter" ? "Adapters" : family === "backbone" ? "Language models" : `${family[0]!.toUpperCase()}${family.slice(1)}s`;
}

export function shortName(type: string): string {
  return (type.split(".")[1] ?? type).replace(/_/g, " ");
}
