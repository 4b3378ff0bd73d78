//! Pure: names of relying parties (in the place of the table that another engineer brings).

pub(crate) struct RelyingParty {
    pub(crate) name: &'static str,
}

pub(crate) const ALL: [RelyingParty; 2] =
    [RelyingParty { name: "aws" }, RelyingParty { name: "pyjwt" }];
