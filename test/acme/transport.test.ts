import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseProblem, retryAfterOf } from '../../src/acme/transport.ts'

const NOW = Date.UTC(2026, 0, 1)

describe('Retry-After', () => {
  it('is read in seconds and as a date', () => {
    assert.equal(retryAfterOf('120', NOW), 120_000)
    assert.equal(retryAfterOf(new Date(NOW + 60_000).toUTCString(), NOW), 60_000)
  })
  it('of the past is none to wait for; nonsense is no answer', () => {
    assert.equal(retryAfterOf(new Date(NOW - 60_000).toUTCString(), NOW), 0)
    assert.equal(retryAfterOf('soon', NOW), undefined)
    assert.equal(retryAfterOf(undefined, NOW), undefined)
  })
})

describe('a problem document', () => {
  it('is told with its type, and with what concerns each name', () => {
    const problem = parseProblem({
      type: 'urn:ietf:params:acme:error:malformed',
      detail: 'Some names are wrong',
      subproblems: [{ type: 'x', detail: 'is reserved', identifier: { type: 'dns', value: 'a.example' } }],
    })
    assert.deepEqual(problem, { type: 'malformed', detail: 'Some names are wrong; a.example: is reserved' })
  })
  it('is told in one line, without control characters', () => {
    assert.match(parseProblem({ detail: 'a\n\u001b[31mb' })?.detail ?? '', /^[ -~]+$/)
  })
  it('is nothing else', () => {
    for (const other of [undefined, 'text', {}, { detail: 7 }]) assert.equal(parseProblem(other), undefined)
  })
})
