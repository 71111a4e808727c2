/** A wire with the shape it carries, and what would mend it. */
import { BaseEdge, type Edge, EdgeLabelRenderer, type EdgeProps, getBezierPath } from "@xyflow/react";
import { memo, type ReactNode } from "react";
import { parseEdge } from "./document";
import { findings } from "./findings";
import { shapeText, wireText } from "./format";
import { mend } from "./gestures";
import { Icon } from "./Icon";
import { colourOf } from "./kinds";
import { useStore } from "./store";

export type WireEdgeType = Edge<Record<string, never>, "wire">;

/** A wire shorter than its label has the label above the nodes, where it is not covered. */
const SHORT = 150;
const ABOVE_NODES = 74;

export const WireEdge = memo(function WireEdge(props: EdgeProps<WireEdgeType>): ReactNode {
  const { id, sourceX, sourceY, targetX, targetY, sourcePosition, targetPosition, selected } = props;
  const [path, x, y] = getBezierPath({ sourceX, sourceY, targetX, targetY, sourcePosition, targetPosition });
  const wire = parseEdge(id);
  const carried = useStore((state) => state.check?.nodes[wire?.source ?? ""]);
  const problem = useStore((state) => {
    const found = findings(state.check);
    return found.byEdge.get(id) ?? found.byPort.get(`${wire?.target}.${wire?.port}`);
  });
  const compact = useStore((state) => state.compact);
  const want = useStore((state) => state.check?.nodes[wire?.target ?? ""]?.wants[wire?.port ?? ""]);
  const width = carried?.shape.at(-1);
  const clash = problem !== undefined && want != null && width != null && want !== width;
  const colour = problem ? "var(--red)" : carried?.kind ? colourOf(carried.kind) : "var(--faint)";
  const lift = targetX - sourceX < SHORT && Math.abs(targetY - sourceY) < 60 ? ABOVE_NODES : 0;
  const label = useStore((state) => state.label);
  const unknown = useStore((state) => state.check !== null) && !carried?.kind && label !== "none";
  const text = unknown ? "unknown" : carried ? wireText(carried, clash ? "shape" : label) : "";
  const about = unknown ? "what comes before has to be mended first" : carried?.kind ? `${carried.kind} ${shapeText(carried)}` : "";
  const look = problem ? " wrong" : unknown ? " unknown" : "";
  return (
    <>
      <BaseEdge
        path={path}
        interactionWidth={18}
        style={{ stroke: colour, strokeWidth: selected ? 3.5 : 2, ...(problem ? { strokeDasharray: "7 4" } : {}) }}
      />
      {!compact && (text || problem) && (
        <EdgeLabelRenderer>
          <div
            className={`wire-label nodrag nopan${look}${selected ? " chosen" : ""}`}
            style={{ transform: `translate(-50%, -50%) translate(${x}px, ${y - lift}px)` }}
            data-wire={id}
          >
            {text && (
              <span title={problem?.message ?? about}>
                {text}
                {clash && <b> ≠ {String(want)}</b>}
              </span>
            )}
            {problem?.fix && (
              <button type="button" className="mend" onClick={() => mend(problem)} title={problem.message}>
                <Icon name="mend" size={12} /> {problem.fix.title}
              </button>
            )}
          </div>
        </EdgeLabelRenderer>
      )}
    </>
  );
});
