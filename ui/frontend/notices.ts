/** Minifying drops the licence comments, so the licence texts of what is bundled are written beside the bundle. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Plugin } from "vite";

export function notices(): Plugin {
  return {
    name: "notices",
    generateBundle(_, bundle) {
      const folders = new Set<string>();
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== "chunk") continue;
        for (const module of Object.keys(chunk.modules)) {
          const folder = packageFolder(module);
          if (folder !== null) folders.add(folder);
        }
      }
      const texts = [...folders].map(notice).sort();
      const source = `Third-party software in the editor's bundle\n\n${texts.join("\n")}`;
      this.emitFile({ type: "asset", fileName: "THIRD_PARTY_NOTICES.txt", source });
    },
  };
}

function packageFolder(module: string): string | null {
  if (!module.includes("node_modules")) return null;
  let folder = dirname(module.replace(/^\0/, "").split("?")[0] ?? module);
  while (!existsSync(join(folder, "package.json")) || manifest(folder).name === undefined) folder = dirname(folder);
  return folder;
}

function manifest(folder: string): { name?: string; version?: string; license?: string } {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf-8"));
}

function notice(folder: string): string {
  const { name, version, license } = manifest(folder);
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined && license === undefined) throw new Error(`${name} has no licence`);
  const text = file === undefined ? `Licence: ${license}` : readFileSync(join(folder, file), "utf-8").trim();
  return `${"-".repeat(79)}\n${name} ${version} (${license})\n\n${text}\n`;
}
