//! SHA-256 of several independent messages of one length at once, one in each lane of a vector register (FIPS 180-4).
//! Only here, to know what it would bring: what hashes in earnest is `estargz::Sha256`.

#![allow(unsafe_code)]

const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const BLOCK: usize = 64;

/// The last block or two of a message of `len` bytes that ends in `rest`.
fn tail(rest: &[u8], len: usize) -> Vec<u8> {
    let mut tail = rest.to_vec();
    tail.push(0x80);
    tail.resize((tail.len() + 8).next_multiple_of(BLOCK) - 8, 0);
    tail.extend((len as u64 * 8).to_be_bytes());
    tail
}

macro_rules! lanes {
    ($name:ident, $features:literal, $lanes:literal, $vector:ident, $zero:ident, $set:ident, $add:ident, $words:ident,
     $ror:ident, $shr:ident, $xor3:ident, $choose:ident, $majority:ident) => {
        /// The digests of as many messages as there are lanes.
        #[target_feature(enable = $features)]
        pub(crate) fn $name(messages: &[&[u8]; $lanes]) -> [[u8; 32]; $lanes] {
            let len = messages[0].len();
            assert!(messages.iter().all(|message| message.len() == len));
            let mut state = INITIAL.map(|word| $set(word as i32));
            let whole = len / BLOCK * BLOCK;
            let tails = messages.map(|message| tail(&message[whole..], len));
            let mut round = |blocks: [&[u8; BLOCK]; $lanes]| {
                let mut w = $words(blocks);
                let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
                for (t, k) in K.iter().enumerate() {
                    let word = if t < 16 {
                        w[t]
                    } else {
                        let (w15, w2) = (w[(t + 1) % 16], w[(t + 14) % 16]);
                        let s0 = $xor3($ror::<7>(w15), $ror::<18>(w15), $shr::<3>(w15));
                        let s1 = $xor3($ror::<17>(w2), $ror::<19>(w2), $shr::<10>(w2));
                        let word = $add($add(w[t % 16], s0), $add(w[(t + 9) % 16], s1));
                        w[t % 16] = word;
                        word
                    };
                    let s1 = $xor3($ror::<6>(e), $ror::<11>(e), $ror::<25>(e));
                    let t1 = $add($add(h, $add(s1, $choose(e, f, g))), $add($set(*k as i32), word));
                    let s0 = $xor3($ror::<2>(a), $ror::<13>(a), $ror::<22>(a));
                    let t2 = $add(s0, $majority(a, b, c));
                    (h, g, f, e, d, c, b, a) = (g, f, e, $add(d, t1), c, b, a, $add(t1, t2));
                }
                for (state, word) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                    *state = $add(*state, word);
                }
            };
            for at in (0..whole).step_by(BLOCK) {
                round(messages.map(|message| message[at..].first_chunk().unwrap()));
            }
            for at in (0..tails[0].len()).step_by(BLOCK) {
                round(std::array::from_fn(|lane| tails[lane][at..].first_chunk().unwrap()));
            }
            // SAFETY: both are plain words of the same size.
            let words: [[u32; $lanes]; 8] = unsafe { std::mem::transmute(state) };
            std::array::from_fn(|lane| {
                let mut digest = [0; 32];
                for (place, word) in digest.chunks_mut(4).zip(&words) {
                    place.copy_from_slice(&word[lane].to_be_bytes());
                }
                digest
            })
        }
    };
}

pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx2")]
    #[inline]
    fn ror<const N: i32>(x: __m256i) -> __m256i {
        // The compiler makes one instruction of it where there is one.
        let left = _mm_cvtsi32_si128(32 - N);
        _mm256_or_si256(_mm256_srli_epi32::<N>(x), _mm256_sll_epi32(x, left))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_xor_si256(a, _mm256_xor_si256(b, c))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn choose(e: __m256i, f: __m256i, g: __m256i) -> __m256i {
        _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn majority(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)))
    }

    /// The words of eight blocks, each of the sixteen with one lane a block.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn words(blocks: [&[u8; BLOCK]; 8]) -> [__m256i; 16] {
        let swap =
            _mm256_broadcastsi128_si256(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
        let mut words = [_mm256_setzero_si256(); 16];
        for half in 0..2 {
            let rows: [__m256i; 8] = std::array::from_fn(|lane| {
                // SAFETY: each half of a block has 32 bytes; the load needs no alignment.
                unsafe { _mm256_loadu_si256(blocks[lane].as_ptr().add(half * 32).cast()) }
            });
            let pairs: [__m256i; 8] = std::array::from_fn(|i| {
                let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
                if i % 2 == 0 { _mm256_unpacklo_epi32(a, b) } else { _mm256_unpackhi_epi32(a, b) }
            });
            let quads: [__m256i; 8] = std::array::from_fn(|i| {
                let (group, at) = (i / 4 * 4, i % 4);
                let (a, b) = (pairs[group + at / 2], pairs[group + at / 2 + 2]);
                if at % 2 == 0 { _mm256_unpacklo_epi64(a, b) } else { _mm256_unpackhi_epi64(a, b) }
            });
            for i in 0..4 {
                let low = _mm256_permute2x128_si256::<0x20>(quads[i], quads[i + 4]);
                let high = _mm256_permute2x128_si256::<0x31>(quads[i], quads[i + 4]);
                words[half * 8 + i] = _mm256_shuffle_epi8(low, swap);
                words[half * 8 + i + 4] = _mm256_shuffle_epi8(high, swap);
            }
        }
        words
    }

    lanes!(
        hash,
        "avx2",
        8,
        __m256i,
        _mm256_setzero_si256,
        _mm256_set1_epi32,
        _mm256_add_epi32,
        words,
        ror,
        _mm256_srli_epi32,
        xor3,
        choose,
        majority
    );
}

pub(crate) mod avx512 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0x96>(a, b, c)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn choose(e: __m512i, f: __m512i, g: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0xca>(e, f, g)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn majority(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0xe8>(a, b, c)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn shr<const N: u32>(x: __m512i) -> __m512i {
        _mm512_srli_epi32::<N>(x)
    }

    /// The words of sixteen blocks, each of the sixteen with one lane a block.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn words(blocks: [&[u8; BLOCK]; 16]) -> [__m512i; 16] {
        let swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
        let rows: [__m512i; 16] = std::array::from_fn(|lane| {
            // SAFETY: a block has 64 bytes; the load needs no alignment.
            unsafe { _mm512_loadu_si512(blocks[lane].as_ptr().cast()) }
        });
        let pairs: [__m512i; 16] = std::array::from_fn(|i| {
            let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
            if i % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
        });
        // quads[4 * group + n]: word n of each quarter of the rows of the group.
        let quads: [__m512i; 16] = std::array::from_fn(|i| {
            let (group, at) = (i / 4 * 4, i % 4);
            let (a, b) = (pairs[group + at / 2], pairs[group + at / 2 + 2]);
            if at % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
        });
        let mut words = [_mm512_setzero_si512(); 16];
        for n in 0..4 {
            let (a, b, c, d) = (quads[n], quads[n + 4], quads[n + 8], quads[n + 12]);
            let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (cd_even, cd_odd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            for (quarter, word) in [
                (0, _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even)),
                (1, _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd)),
                (2, _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even)),
                (3, _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd)),
            ] {
                words[quarter * 4 + n] = _mm512_shuffle_epi8(word, swap);
            }
        }
        words
    }

    lanes!(
        hash,
        "avx512f,avx512bw",
        16,
        __m512i,
        _mm512_setzero_si512,
        _mm512_set1_epi32,
        _mm512_add_epi32,
        words,
        _mm512_ror_epi32,
        shr,
        xor3,
        choose,
        majority
    );
}
