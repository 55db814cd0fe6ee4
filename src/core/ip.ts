import * as net from 'node:net'

/** As `isIPv6` of node:net, whose pattern takes 7 ms to compile at its first use: asked only of what holds two colons, as every such address does. */
export const isIPv6 = (text: string): boolean => text.indexOf(':') !== text.lastIndexOf(':') && net.isIPv6(text)

/** 4, 6, or 0 for what is no address. */
export const isIP = (text: string): 0 | 4 | 6 => (net.isIPv4(text) ? 4 : isIPv6(text) ? 6 : 0)
