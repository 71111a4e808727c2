/** What travels between the browser and Python. */
import type { Doc, Json, Raw } from "./document";

export interface Field {
  key: string;
  control: string;
  choices: (string | number)[];
  nullable: boolean;
  required: boolean;
  default: Json;
  about: string;
  least: number | null;
  most: number | null;
  pattern: string | null;
}

export interface PartInfo {
  type: string;
  family: string;
  role: "node" | "adapter" | "dataset";
  name: string;
  summary: string;
  doc: string;
  papers: string[];
  modalities: string[];
  trait: "delta" | "whole" | "mixer" | null;
  ports: Record<string, string[]>;
  gives: string[];
  grows: string | null;
  start: Raw;
  fields: Field[];
}

export interface Catalogue {
  parts: Record<string, PartInfo>;
  axes: Record<string, string[]>;
}

export type Dim = number | string | null;

export interface NodeCheck {
  kind: string | null;
  shape: Dim[];
  ragged: boolean;
  dtype: string | null;
  ports: Record<string, string[]>;
  optional: string[];
  wants: Record<string, Dim>;
}

export type Operation =
  | { op: "set"; path: (string | number)[]; value: Json }
  | { op: "rewire"; edge: string; edges: string[] };

export interface Problem {
  message: string;
  line: number;
  column: number;
  node: string | null;
  port: string | null;
  fix: { title: string; operations: Operation[] } | null;
}

export interface Check {
  tab: string;
  rev: number;
  nodes: Record<string, NodeCheck>;
  problems: Problem[];
  yaml: string;
}

/** A request is sent with every document until it is answered, so that none is lost and each is done once. */
export interface Request {
  id: string;
  name: "save" | "read" | "discard";
  text?: string;
  path?: string;
}

export interface Answer {
  id: string;
  doc?: Doc;
  problems?: Problem[];
  error?: string;
  said?: string;
}

/** Up: the whole document, always. */
export interface Sent {
  tab: string;
  id: string;
  parent: number;
  rev: number;
  force: boolean;
  document: Doc;
  requests: Request[];
}

/** Down: what Python holds, and what it found. */
export interface Received {
  role: "editor";
  doc: { id: string; version: number; tab: string; rev: number; document: Doc };
  place: { path: string | null; writable: boolean; dirty: boolean; command: string };
  check: Check | null;
  /** The newest gesture that Python took in this session, and from which tab. */
  taken: { tab: string; rev: number } | null;
  conflict: { version: number; document: Doc } | null;
  answers: Answer[];
}

/** `bytes`: weights, and gradients and moments of what is trained; `flops` of a step, of the stage that does most. */
export interface Cost {
  parameters: number;
  trainable: number;
  bytes?: number;
  flops?: number;
}

export interface Costs {
  key: string;
  state: "counting" | "ready" | "failed";
  why: string;
  nodes: Record<string, Cost>;
  adapters: Record<string, Cost>;
  total: number;
  trainable: number;
  stages: Record<string, { memory_bytes: number; weights_bytes: number; flops: number }>;
  serving: { weights_bytes: number; cache_bytes_per_token: number } | null;
  sites: Record<string, string[]>;
  prompts: Record<string, PromptPiece[]>;
}

export interface PromptPiece {
  text: string;
  slot: string | null;
  tokens: number | null;
  source: "text" | "wire" | "data";
}

/** The newest run of this spec: `learning` are the nodes and adapters that its stage of now trains. */
export interface RunState {
  name: string;
  state: "running" | "done" | "stopped" | "ended early";
  stage: string;
  step: number;
  steps: number;
  loss: number | null;
  learning: string[];
}

export interface Feed {
  role: "feed";
  costs: Costs | null;
  run: RunState | null;
  doc: { id: string; version: number; tab: string; rev: number; document: Doc | null };
}
