/** What other tools call things that templates here know by another name, or do not know; `docs/templates.md` has the same as a table. */
const NAMES: Readonly<Record<string, string>> = {
  toJSON: 'json',
  toJSONPretty: 'json_pretty',
  toUnescapedJSON: 'json',
  toYAML: 'yaml',
  toYaml: 'yaml',
  toJson: 'json',
  parseJSON: 'parse_json',
  base64Decode: 'base64_decode',
  base64Encode: 'base64_encode',
  base64URLDecode: 'base64url_decode',
  base64URLEncode: 'base64url_encode',
  b64dec: 'base64_decode',
  b64enc: 'base64_encode',
  sha256Hex: 'sha256',
  sha256sum: 'sha256',
  toUpper: 'upper',
  toLower: 'lower',
  replaceAll: 'replace',
  trimSpace: 'trim',
  trimPrefix: 'trim_prefix',
  trimSuffix: 'trim_suffix',
  splitToMap: 'split',
  parseInt: 'to_int',
  atoi: 'to_int',
  int: 'to_int',
  add: 'plus',
  subtract: 'minus',
  multiply: 'times',
  timestamp: 'date',
  urlquery: 'url_encode',
  sortAlpha: 'sort',
  has: 'keys',
  length: 'size',
  len: 'size',
  raw: '',
  escape: '',
}

/** The engine's words for a mistake in a template, and what to write instead. */
export function elsewhere(
  said: string,
  known: { readonly tags: readonly string[]; readonly filters: readonly string[] },
): string {
  const [, filter] = /^undefined filter: (.+)$/s.exec(said) ?? []
  if (filter !== undefined) return `there is no filter ${JSON.stringify(filter)}${insteadOf(filter, known.filters)}`
  const [, tag] = /^tag "(.+)" not found$/s.exec(said) ?? []
  if (tag === undefined) return said
  if (['include', 'render', 'layout', 'block'].includes(tag))
    return `there is no tag "${tag}": a template reads no other files`
  return `there is no tag ${JSON.stringify(tag)}; there are ${known.tags.join(', ')}`
}

function insteadOf(filter: string, known: readonly string[]): string {
  const other = Object.hasOwn(NAMES, filter) ? NAMES[filter] : undefined
  if (other === '') return '; nothing is escaped here, so leave it out'
  if (/regex|match/i.test(filter))
    return '; patterns could run for ever, so there are none: see replace, split and trim_prefix'
  const near = other ?? known.find((name) => squeezed(name) === squeezed(filter))
  return near === undefined ? '; docs/templates.md has them all' : `; here it is called ${near}`
}

const squeezed = (name: string) => name.replace(/[_-]/g, '').toLowerCase()

/** Whether a template is written for Go's text/template. */
export const looksLikeGo = (text: string): boolean =>
  /\{\{-?\s*(?:(?:with|range|end|else|if|define|block|template|secret|key|env|file)\b|\$\w|\.[A-Za-z])/.test(text)
