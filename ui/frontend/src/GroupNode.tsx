/** A frame around some nodes, with a comment. */
import type { Node, NodeProps } from "@xyflow/react";
import { memo, type ReactNode } from "react";
import { store, useStore } from "./store";

export type GroupNodeType = Node<Record<string, never>, "frame">;

export const GroupNode = memo(function GroupNode({ id }: NodeProps<GroupNodeType>): ReactNode {
  const name = id.slice("group:".length);
  const note = useStore((state) => state.history.doc.graph.groups[name]?.note ?? "");
  const chosen = useStore((state) => state.selection.group === name);
  return (
    <div className={`frame${chosen ? " chosen" : ""}`}>
      <button type="button" className="frame-title nopan" title={note ? `${name}: ${note}` : name} onClick={() => store.select({ group: name })}>
        <strong>{name}</strong> {note}
      </button>
    </div>
  );
});
