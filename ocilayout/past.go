package ocilayout

import "github.com/opencontainers/go-digest"

// maxPast bounds how much of a tag's past is kept.
const maxPast = 4

// past is where a tag pointed before other programs moved it, one after the other, the oldest first. When
// two of them edit index.json so soon after each other that both name the same generation, it tells
// whether the later one changed the tag or knew nothing of the earlier one. A move that was answered here
// ends it: nobody who did not know of that overrules it.
type past []place

// place is where a tag pointed from a generation on. Without a digest: nowhere.
type place struct {
	Generation uint64        `json:"gen"`
	Digest     digest.Digest `json:"digest,omitempty"`
}

// with adds where the tag pointed until now.
func (p past) with(until place) past {
	p = append(p[:len(p):len(p)], until)
	return p[max(0, len(p)-maxPast):]
}

// changes reports whether a program that read index.json at a generation, and then has the tag point
// elsewhere, has changed it.
func (p past) changes(read uint64, to digest.Digest) bool {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i].Generation <= read {
			return p[i].Digest != to
		}
	}
	return false
}
