package berth

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// Flusher is a registry that can be asked to make all that it has answered durable now. A registry
// whose answers are durable does little; what others read of it, such as an image layout's
// index.json, is up to date when Flush returns.
type Flusher interface {
	// Flush returns when everything that was answered before the call would survive a power cut.
	Flush(ctx context.Context) error
}

// Collector is a registry that can remove what nothing needs.
type Collector interface {
	// GC applies the rules for what to keep, and then removes the blobs that no manifest of any
	// repository names. It runs beside pushes and pulls; a blob that a client stored, or was told
	// exists, within the grace period is spared, and so are all within one grace period of the
	// registry's start. The rules end tags and images at once; their blobs obey the grace period too.
	//
	// What was removed before the context ended stays removed, and is in the report.
	//
	// Errors: ErrUnsupported where the registry cannot be written to.
	GC(ctx context.Context, opts *GCOptions) (GCReport, error)
}

// Checker is a registry that can check all that it holds.
type Checker interface {
	// Fsck reads every blob, and compares what the registry believes with what is there. It runs
	// beside pushes and pulls. Damage is no error: it is what the report is for.
	Fsck(ctx context.Context, opts *FsckOptions) (FsckReport, error)
}

// Checkouter is a registry in a directory that other programs can be let into.
type Checkouter interface {
	// Checkout waits for what is being written, brings the directory up to date, and keeps
	// everything in it as it is until done is called: what would write waits. Then a program may
	// change the directory as it likes, delete blobs included; done takes in what it did.
	Checkout(ctx context.Context) (done func(context.Context) error, err error)
}

// GCOptions say what is kept. Nil is the zero value: every tag and every manifest.
type GCOptions struct {
	// DryRun removes nothing and reports what would be.
	DryRun bool
	// Grace spares a blob that was stored or vouched for within this time. Zero: the registry's
	// own; negative: no grace, for a registry that nobody else uses at this moment.
	Grace time.Duration
	// Keep limits the number of tags. A repository obeys the first rule that matches it.
	Keep []KeepRule
	// UntaggedAfter removes a manifest that for this long had no tag, was in no index and referred
	// to no manifest of its repository. Zero: never.
	UntaggedAfter time.Duration
	// MaxBytes removes images, least recently used first, until what is left needs no more than
	// this. Zero: no limit.
	MaxBytes int64
}

// KeepRule keeps the newest tags of some repositories, and ends the others.
type KeepRule struct {
	// Repositories is a pattern for names: "*" matches within one path element, "**" across them.
	Repositories string `json:"repositories"`
	// Newest is how many tags each of them keeps: those that were pushed last.
	Newest int `json:"newest"`
}

// GCReport is what was removed, or would be.
type GCReport struct {
	DryRun bool `json:"dryRun,omitempty"`
	// Tags and Manifests are what the rules ended, with the rule.
	Tags      []Removal `json:"tags,omitempty"`
	Manifests []Removal `json:"manifests,omitempty"`
	// Blobs and Bytes are what was removed from the disk, manifests included.
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
	// Spared and SparedBytes are not needed either, and stay for the grace period.
	Spared      int   `json:"spared,omitempty"`
	SparedBytes int64 `json:"sparedBytes,omitempty"`
	// Left and LeftBytes are what is there afterwards.
	Left      int   `json:"left"`
	LeftBytes int64 `json:"leftBytes"`
}

// Removal is one tag or manifest that a rule ended.
type Removal struct {
	Repository string `json:"repository"`
	// Tag is empty where a manifest was removed.
	Tag    string        `json:"tag,omitempty"`
	Digest digest.Digest `json:"digest"`
	// Reason is the rule, in words: "not among the newest 5".
	Reason string `json:"reason"`
}

// FsckOptions say what is done about damage. Nil is the zero value.
type FsckOptions struct {
	// Repair moves what is damaged out of the way, so that the next push of the same digest puts
	// it right, and drops what points at nothing.
	Repair bool
}

// FsckReport is what was looked at, and what was found wrong.
type FsckReport struct {
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
	Manifests int   `json:"manifests"`
	Tags      int   `json:"tags"`
	// Sparse counts the images and indexes that came without some of their children, by a push that was
	// allowed to or in index.json, and lack some still. What was taken away since is a Problem.
	Sparse int `json:"sparse,omitempty"`
	// Unknown counts files under blobs/ that belong to no repository; a collection removes them.
	Unknown  int       `json:"unknown,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
}

// The kinds of Problem.
const (
	ProblemDamaged  = "damaged"  // a blob's bytes are not what its digest says
	ProblemMissing  = "missing"  // a blob that a repository has, or an image needs, is not there
	ProblemDangling = "dangling" // a tag points at no manifest
	ProblemIndex    = "index"    // the registry's own records contradict each other
)

// Problem is one thing that is wrong.
type Problem struct {
	Kind string `json:"kind"`
	// Digest of the blob or manifest. Empty for a problem of the records.
	Digest digest.Digest `json:"digest,omitempty"`
	// References are who is affected: "app/hello:v1", or "app/hello@sha256:…".
	References []string `json:"references,omitempty"`
	// Detail is what is wrong, in words.
	Detail string `json:"detail"`
	// Repaired tells that Repair did its part. What is missing still has to be pushed again.
	Repaired bool `json:"repaired,omitempty"`
}
