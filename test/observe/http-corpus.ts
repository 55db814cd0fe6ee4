/** What an attacker sends in one go, and why it is dangerous behind or beside other HTTP parsers. */
export interface Attack {
  readonly claim: string
  readonly bytes: string | Buffer
}

/** Changes something where it is let through; whatever hides it must not have it answered, let alone obeyed. */
const HIDDEN_BODY = '{"certificates":"all"}'
const HIDDEN = `POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${HIDDEN_BODY.length}\r\n\r\n${HIDDEN_BODY}`

/** The head of a POST, and what follows it. The path is one that takes POST on either server. */
const post = (headers: string, rest: string, { host = 'Host: localhost\r\n' } = {}) =>
  `POST /rotate HTTP/1.1\r\n${host}${headers}\r\n\r\n${rest}`
const get = (headers: string, rest = '') => `GET /livez HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n\r\n${rest}`
const chunked = (encoding: string) => post(`${encoding}`, `0\r\n\r\n${HIDDEN}`)

/**
 * One message each that two parsers may cut at different places (RFC 9112 §11.2), with a request hidden behind the cut; or that no parser
 * should take. None of them may get more than one answer, and that one must refuse and close.
 */
export const SMUGGLING: readonly Attack[] = [
  // Which length counts (RFC 9112 §6.3).
  { claim: 'CL.TE', bytes: post('Content-Length: 6\r\nTransfer-Encoding: chunked', `0\r\n\r\n${HIDDEN}`) },
  { claim: 'TE.CL', bytes: post('Transfer-Encoding: chunked\r\nContent-Length: 4', `5c\r\n${HIDDEN}\r\n0\r\n\r\n`) },
  { claim: 'two lengths that differ', bytes: post('Content-Length: 0\r\nContent-Length: 44', HIDDEN) },
  { claim: 'two lengths that are the same', bytes: post('Content-Length: 0\r\nContent-Length: 0', HIDDEN) },
  ...[
    '+5',
    '5,5',
    '5, 5',
    '-1',
    '0x5',
    '5 5',
    '1e1',
    '',
    '5;',
    '٥',
    '99999999999999999999',
    '18446744073709551621',
  ].map((value) => ({
    claim: `Content-Length: "${value}"`,
    bytes: post(`Content-Length: ${value}`, `12345${HIDDEN}`),
  })),
  // Whether it is chunked (TE.TE).
  ...[
    'Transfer-Encoding: xchunked',
    'Transfer-Encoding : chunked',
    'Transfer-Encoding\t: chunked',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: x',
    'Transfer-Encoding: x\r\nTransfer-Encoding: chunked',
    'Transfer-Encoding: chunked, identity',
    'Transfer-Encoding: identity, chunked',
    'Transfer-Encoding: identity',
    'Transfer-Encoding: gzip, chunked',
    'Transfer-Encoding: chunked, chunked',
    'Transfer-Encoding: "chunked"',
    'Transfer-Encoding:\u000bchunked',
    'Transfer-Encoding: \u0000chunked',
    'Transfer-Encoding: chunked\u0000',
    'X: y\nTransfer-Encoding: chunked',
    'X: y\rTransfer-Encoding: chunked',
    'Transfer-Encoding:\r\n chunked',
    'Transfer-Encoding: chun\r\n ked',
    ' Transfer-Encoding: chunked',
    'Transfer_Encoding: chunked',
    'Transfer-Encoding: chunked;q=1',
    'Transfer-Encoding: chünked',
  ].map((header) => ({ claim: JSON.stringify(header), bytes: chunked(header) })),
  // How long a chunk is.
  ...['-1', '+1', '0x1', '1 ', ' 1', '1_', 'g', '', 'ffffffffffffffff', '10000000000000001', '1\n', '1\r'].map(
    (size) => ({
      claim: `a chunk of size ${JSON.stringify(size)}`,
      bytes: post('Transfer-Encoding: chunked', `${size}\r\nx\r\n0\r\n\r\n${HIDDEN}`),
    }),
  ),
  {
    claim: 'a chunk longer than its size',
    bytes: post('Transfer-Encoding: chunked', `1\r\nxyz\r\n0\r\n\r\n${HIDDEN}`),
  },
  { claim: 'a chunk that a bare LF ends', bytes: post('Transfer-Encoding: chunked', `1\r\nx\n0\r\n\r\n${HIDDEN}`) },
  {
    claim: 'a chunk extension with a bare LF',
    bytes: post('Transfer-Encoding: chunked', `1;a\nb\r\nx\r\n0\r\n\r\n${HIDDEN}`),
  },
  {
    claim: 'a trailer that names a length',
    bytes: post('Transfer-Encoding: chunked', `0\r\nContent-Length: 99\r\n\r\n${HIDDEN}`),
  },
  {
    claim: '64 KiB of chunk extensions',
    bytes: post('Transfer-Encoding: chunked', `1;${'e'.repeat(65_536)}\r\nx\r\n0\r\n\r\n${HIDDEN}`),
  },
  // Where a line, a name or the head ends.
  { claim: 'bare LF for line ends', bytes: `GET /livez HTTP/1.1\nHost: localhost\nContent-Length: 44\n\n${HIDDEN}` },
  { claim: 'bare CR for line ends', bytes: `GET /livez HTTP/1.1\rHost: localhost\r\r${HIDDEN}` },
  { claim: 'a bare CR in a value', bytes: get(`X: a\rContent-Length: ${HIDDEN.length}`, HIDDEN) },
  { claim: 'a NUL in a value', bytes: get('X: a\u0000b', HIDDEN) },
  { claim: 'a NUL in a name', bytes: get('X\u0000Y: a', HIDDEN) },
  { claim: 'a line folded (obs-fold)', bytes: get(`X: a\r\n Content-Length: ${HIDDEN.length}`, HIDDEN) },
  { claim: 'a first header line that is folded', bytes: `GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'a space before the colon', bytes: get(`Content-Length : ${HIDDEN.length}`, HIDDEN) },
  { claim: 'a header without a name', bytes: get(': x', HIDDEN) },
  { claim: 'a header without a colon', bytes: get('Garbage', HIDDEN) },
  {
    claim: 'two hosts',
    bytes: `GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: y\r\nContent-Length: 44\r\n\r\n${HIDDEN}`,
  },
  { claim: 'no host', bytes: `GET /livez HTTP/1.1\r\n\r\n${HIDDEN}` },
  {
    claim: 'two hosts that are the same',
    bytes: `TRACE /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n${HIDDEN}`,
  },
  { claim: 'an expectation that nobody meets', bytes: get('Expect: x', HIDDEN) },
  { claim: 'GET with a body', bytes: get(`Content-Length: ${HIDDEN.length}`, HIDDEN) },
  // Versions, forms and methods of other protocols.
  { claim: 'HTTP/0.9', bytes: `GET /livez\r\n${HIDDEN}` },
  { claim: 'HTTP/1.2', bytes: `GET /livez HTTP/1.2\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'HTTP/2.0', bytes: `GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'HTTP/1.1x', bytes: `GET /livez HTTP/1.1x\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'http/1.1', bytes: `GET /livez http/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'the preface of HTTP/2', bytes: `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${HIDDEN}` },
  {
    claim: 'an upgrade to h2c',
    bytes: post('Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__', HIDDEN),
  },
  {
    claim: 'an upgrade to websocket',
    bytes: post('Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', HIDDEN),
  },
  { claim: 'CONNECT', bytes: `CONNECT 127.0.0.1:8200 HTTP/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'TRACE', bytes: `TRACE /livez HTTP/1.1\r\nHost: localhost\r\nX-Secret: y\r\n\r\n${HIDDEN}` },
  { claim: 'OPTIONS', bytes: `OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'a method in lower case', bytes: `get /livez HTTP/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'an absolute URI', bytes: `GET http://127.0.0.1:8200/livez HTTP/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'a space in the path', bytes: `GET /livez /rotate HTTP/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'a CR in the path', bytes: `GET /livez\r/ HTTP/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  { claim: 'a TLS hello', bytes: Buffer.from('16030100a5010000a10303', 'hex') },
  { claim: 'an SSH banner', bytes: 'SSH-2.0-OpenSSH_9.2\r\n' },
  { claim: 'a Redis command', bytes: '*1\r\n$8\r\nFLUSHALL\r\n' },
  { claim: 'the PROXY protocol', bytes: `PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n${HIDDEN}` },
  {
    claim: '4 KiB of bytes of every value',
    bytes: Buffer.from(Array.from({ length: 4096 }, (_, index) => (index * 167) % 256)),
  },
  // More than anybody needs.
  { claim: '20 KiB of headers', bytes: get(`X: ${'x'.repeat(20_480)}`, HIDDEN) },
  { claim: 'a URL of 64 KiB', bytes: `GET /livez?${'x'.repeat(65_536)} HTTP/1.1\r\nHost: localhost\r\n\r\n${HIDDEN}` },
  {
    claim: '10,000 header lines',
    bytes: get(Array.from({ length: 10_000 }, (_, index) => `X-${index}: y`).join('\r\n'), HIDDEN),
  },
  { claim: 'a method of 64 KiB', bytes: `${'X'.repeat(65_536)} /livez HTTP/1.1\r\nHost: localhost\r\n\r\n` },
  { claim: 'line ends without a request', bytes: `${'\r\n'.repeat(40_000)}X\r\n${HIDDEN}` },
]
