import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { notices } from "./notices.ts";

export default defineConfig({
  plugins: [react(), notices()],
  define: { "process.env.NODE_ENV": JSON.stringify("production") },
  build: {
    outDir: "../editor/assets",
    emptyOutDir: true,
    target: "es2022",
    // `light-dark()` stays as it is: its polyfill needs the variables of a page of its own.
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    lib: { entry: "src/index.tsx", formats: ["es"] },
    rolldownOptions: {
      output: { entryFileNames: "editor-[hash].js", codeSplitting: false, minify: true },
    },
  },
  test: { include: ["tests/*.test.ts"], testTimeout: 30_000 },
});
