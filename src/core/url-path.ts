import { SidecarError } from '../errors.ts'

/** One segment of a path: a URL folds `.` and `..`, and no encoding helps against them or against slashes. */
export const isSegment = (text: string): boolean =>
  text !== '' && text !== '.' && text !== '..' && !/[/\p{Cc}]/u.test(text)

/**
 * Percent-encodes each segment, since a URL folds `pki/../sys/seal` and cuts at `?` and `#`. What would lead elsewhere all the same, since
 * servers decode it before they look, throws CONFIG_INVALID; `of` says in what there is no such path.
 */
export function encodePath(segments: readonly string[], of: string): string {
  if (segments.every(isSegment)) return segments.map(encodeURIComponent).join('/')
  throw new SidecarError('CONFIG_INVALID', `${JSON.stringify(segments.join('/'))} is no path ${of}`)
}
