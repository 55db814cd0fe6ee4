import type { Bundle } from '../core/bundle.ts'

/** Certificates that came along for nothing are left out, which whoever put them there should know. */
export function warnOfUnrelated(
  { serial, unrelated = [] }: Bundle,
  place: string,
  warn: (message: string) => void,
): void {
  if (unrelated.length === 0) return
  const who = unrelated.map((subject) => `"${subject}"`).join(', ')
  warn(`${place} holds ${who} besides, which is no issuer of certificate ${serial}; it is left out`)
}
