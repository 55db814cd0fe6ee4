import { createPatch, type Operation } from 'rfc6902'

/**
 * JSON Patch (RFC 6902) from one object to the other. Keys of a map are added one by one, and a map as a whole only where there was none: an
 * `add` of `/metadata/labels` would replace all labels, and a ReplicaSet would no longer know its pods and make ever more.
 */
export const patchOf = (before: object, after: object): Operation[] => createPatch(before, after, byPlace)

/**
 * Of two arrays those elements belong together that stand at the same place, counted from the end where something was put before them. The
 * package would compare each with each: seconds for a pod of a thousand volumes, which whoever makes pods could send.
 */
function byPlace(before: unknown, after: unknown, at: { toString(): string }): Operation[] | undefined {
  if (!Array.isArray(before) || !Array.isArray(after)) return undefined
  const more = after.length - before.length
  if (more < 0) return [{ op: 'replace', path: at.toString(), value: after }]
  const isBefore = more > 0 && before.length > 0 && nameOf(before[0]) !== nameOf(after[0])
  const added = isBefore ? after.slice(0, more) : after.slice(before.length)
  const offset = isBefore ? more : 0
  return [
    ...(isBefore ? added.toReversed() : added).map(
      (value): Operation => ({ op: 'add', path: `${at}/${isBefore ? 0 : '-'}`, value }),
    ),
    ...before.flatMap((element, index) => within(`${at}/${index + offset}`, element, after[index + offset])),
  ]
}

function within(path: string, before: unknown, after: unknown): Operation[] {
  return createPatch(before, after, byPlace).map((operation) => ({ ...operation, path: path + operation.path }))
}

/** Containers, volumes and mounts have one. */
const nameOf = (element: unknown): unknown =>
  typeof element === 'object' && element !== null && 'name' in element ? element.name : element
