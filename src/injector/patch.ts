import { createPatch } from 'rfc6902'

/**
 * JSON Patch (RFC 6902) from one object to the other. Keys of a map are added one by one, and a map as a whole only where there was none: an
 * `add` of `/metadata/labels` would replace all labels, and a ReplicaSet would no longer know its pods and make ever more.
 */
export const patchOf = (before: object, after: object) => createPatch(before, after)
