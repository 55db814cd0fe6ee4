import type { Instant } from '../core/content.ts'

/** RFC 3339 §5.6, or seconds since 1970 as a number or as digits; undefined where it is neither. */
export function parseInstant(text: string): Instant | undefined {
  if (/^-?\d{1,12}$/.test(text)) return Number(text) * 1000
  if (!/^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/.test(text)) return undefined
  const instant = Date.parse(text.replace(' ', 'T').toUpperCase())
  return Number.isNaN(instant) ? undefined : instant
}

/** As strftime(3) in the C locale and in UTC; `%-d` leaves out the padding. Undefined where the format holds what is not known here. */
export function formatInstant(instant: Instant, format: string): string | undefined {
  const date = new Date(instant)
  if (Number.isNaN(date.getTime())) return undefined
  let isKnown = true
  const text = format.replace(/%(-?)([a-zA-Z%])?/g, (_, flag: string, letter: string | undefined) => {
    const part = letter === undefined ? undefined : partOf(date, letter)
    isKnown &&= part !== undefined
    return flag === '-' ? (part?.replace(/^[0 ]+(?=.)/, '') ?? '') : (part ?? '')
  })
  return isKnown ? text : undefined
}

function partOf(date: Date, letter: string): string | undefined {
  const iso = date.toISOString()
  const [day = '', time = ''] = iso.split('T')
  const weekday = DAYS[date.getUTCDay()] ?? ''
  const month = MONTHS[date.getUTCMonth()] ?? ''
  const parts: Readonly<Record<string, string>> = {
    Y: String(date.getUTCFullYear()),
    y: padded(date.getUTCFullYear() % 100, 2),
    m: padded(date.getUTCMonth() + 1, 2),
    d: padded(date.getUTCDate(), 2),
    e: String(date.getUTCDate()).padStart(2),
    j: padded(Math.floor((date.getTime() - Date.UTC(date.getUTCFullYear(), 0)) / 86_400_000) + 1, 3),
    H: padded(date.getUTCHours(), 2),
    I: padded(date.getUTCHours() % 12 || 12, 2),
    p: date.getUTCHours() < 12 ? 'AM' : 'PM',
    M: padded(date.getUTCMinutes(), 2),
    S: padded(date.getUTCSeconds(), 2),
    L: padded(date.getUTCMilliseconds(), 3),
    s: String(Math.floor(date.getTime() / 1000)),
    F: day,
    T: time.slice(0, 8),
    A: weekday,
    a: weekday.slice(0, 3),
    B: month,
    b: month.slice(0, 3),
    z: '+0000',
    Z: 'UTC',
    '%': '%',
  }
  return Object.hasOwn(parts, letter) ? parts[letter] : undefined
}

const padded = (number: number, width: number) => String(number).padStart(width, '0')

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
]
