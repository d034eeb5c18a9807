package plugin

import (
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// each converts a list. An empty one is nil.
func each[From, To any](list []From, convert func(From) To) []To {
	var all []To
	for _, one := range list {
		all = append(all, convert(one))
	}
	return all
}

// text makes a string one that protobuf takes: an error may quote a path, which need not be UTF-8.
func text[S ~string](s S) string { return strings.ToValidUTF8(string(s), "\uFFFD") }

func infoToProto(i Info) *controlpb.HelloResponse {
	return &controlpb.HelloResponse{Version: i.Version, Layout: []byte(i.Layout), Pid: int64(i.PID), Device: i.Device, Inode: i.Inode}
}

func infoFromProto(p *controlpb.HelloResponse) Info {
	return Info{Version: p.GetVersion(), Layout: string(p.GetLayout()), PID: int(p.GetPid()), Device: p.GetDevice(), Inode: p.GetInode()}
}

func gcOptionsToProto(o *berth.GCOptions) *controlpb.GCRequest {
	if o == nil {
		return &controlpb.GCRequest{}
	}
	return &controlpb.GCRequest{
		DryRun:          o.DryRun,
		GraceNs:         int64(o.Grace),
		UntaggedAfterNs: int64(o.UntaggedAfter),
		MaxBytes:        o.MaxBytes,
		Keep: each(o.Keep, func(r berth.KeepRule) *controlpb.KeepRule {
			return &controlpb.KeepRule{Repositories: text(r.Repositories), Newest: int64(r.Newest)}
		}),
	}
}

func gcOptionsFromProto(p *controlpb.GCRequest) *berth.GCOptions {
	return &berth.GCOptions{
		DryRun:        p.GetDryRun(),
		Grace:         time.Duration(p.GetGraceNs()),
		UntaggedAfter: time.Duration(p.GetUntaggedAfterNs()),
		MaxBytes:      p.GetMaxBytes(),
		Keep: each(p.GetKeep(), func(r *controlpb.KeepRule) berth.KeepRule {
			return berth.KeepRule{Repositories: r.GetRepositories(), Newest: int(r.GetNewest())}
		}),
	}
}

func gcReportToProto(r berth.GCReport) *controlpb.GCReport {
	return &controlpb.GCReport{
		DryRun:      r.DryRun,
		Tags:        each(r.Tags, removalToProto),
		Manifests:   each(r.Manifests, removalToProto),
		Blobs:       int64(r.Blobs),
		Bytes:       r.Bytes,
		Spared:      int64(r.Spared),
		SparedBytes: r.SparedBytes,
		Left:        int64(r.Left),
		LeftBytes:   r.LeftBytes,
	}
}

func gcReportFromProto(p *controlpb.GCReport) berth.GCReport {
	return berth.GCReport{
		DryRun:      p.GetDryRun(),
		Tags:        each(p.GetTags(), removalFromProto),
		Manifests:   each(p.GetManifests(), removalFromProto),
		Blobs:       int(p.GetBlobs()),
		Bytes:       p.GetBytes(),
		Spared:      int(p.GetSpared()),
		SparedBytes: p.GetSparedBytes(),
		Left:        int(p.GetLeft()),
		LeftBytes:   p.GetLeftBytes(),
	}
}

func removalToProto(r berth.Removal) *controlpb.Removal {
	return &controlpb.Removal{Repository: text(r.Repository), Tag: text(r.Tag), Digest: text(r.Digest), Reason: text(r.Reason)}
}

func removalFromProto(p *controlpb.Removal) berth.Removal {
	return berth.Removal{Repository: p.GetRepository(), Tag: p.GetTag(), Digest: digest.Digest(p.GetDigest()), Reason: p.GetReason()}
}

func fsckOptionsToProto(o *berth.FsckOptions) *controlpb.FsckRequest {
	if o == nil {
		return &controlpb.FsckRequest{}
	}
	return &controlpb.FsckRequest{Repair: o.Repair}
}

func fsckOptionsFromProto(p *controlpb.FsckRequest) *berth.FsckOptions {
	return &berth.FsckOptions{Repair: p.GetRepair()}
}

func fsckReportToProto(r berth.FsckReport) *controlpb.FsckReport {
	return &controlpb.FsckReport{
		Blobs:     int64(r.Blobs),
		Bytes:     r.Bytes,
		Manifests: int64(r.Manifests),
		Tags:      int64(r.Tags),
		Sparse:    int64(r.Sparse),
		Unknown:   int64(r.Unknown),
		Problems:  each(r.Problems, problemToProto),
	}
}

func fsckReportFromProto(p *controlpb.FsckReport) berth.FsckReport {
	return berth.FsckReport{
		Blobs:     int(p.GetBlobs()),
		Bytes:     p.GetBytes(),
		Manifests: int(p.GetManifests()),
		Tags:      int(p.GetTags()),
		Sparse:    int(p.GetSparse()),
		Unknown:   int(p.GetUnknown()),
		Problems:  each(p.GetProblems(), problemFromProto),
	}
}

func problemToProto(p berth.Problem) *controlpb.Problem {
	return &controlpb.Problem{Kind: text(p.Kind), Digest: text(p.Digest), References: each(p.References, text[string]), Detail: text(p.Detail), Repaired: p.Repaired}
}

func problemFromProto(p *controlpb.Problem) berth.Problem {
	return berth.Problem{Kind: p.GetKind(), Digest: digest.Digest(p.GetDigest()), References: p.GetReferences(), Detail: p.GetDetail(), Repaired: p.GetRepaired()}
}
